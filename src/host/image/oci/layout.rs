//! Images as the OCI lays them out, `oci-layout`, `index.json`, `blobs`, in a directory or in one
//! archive; and the archives of `docker save`. Blocking.

use std::path::Path;
use std::sync::Arc;

use super::archive::Archive;
use super::document::{
    Config, Descriptor, Document, DocumentError, MAX_STEPS, Manifest, check, choose, parse,
};
use super::place::{Place, blob};
use super::saved;
use crate::host::image::import::ImportError;
use crate::host::image::layers::Layer;
use crate::model::{Digest, ImageConfig};

const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";

/// What an image is made of.
#[derive(Debug)]
pub(in crate::host::image) struct Opened {
    /// The lowest first.
    pub(in crate::host::image) layers: Vec<Layer>,
    pub(in crate::host::image) config: ImageConfig,
}

pub(in crate::host::image) fn is_layout(dir: &Path) -> bool {
    dir.join(MARK).is_file() && dir.join(INDEX).is_file()
}

/// The one image for this platform.
pub(in crate::host::image) fn open(dir: &Path) -> Result<Opened, ImportError> {
    layout(&Place::Directory(dir.to_owned()))
}

/// The same of an archive. Newer ones of `docker save` are both: there the layout says more.
pub(in crate::host::image) fn open_archive(archive: Archive) -> Result<Opened, ImportError> {
    let is = |name| archive.has(name);
    let (is_layout, is_saved) = (is(MARK) && is(INDEX), is(saved::MANIFEST));
    let place = Place::Archive(Arc::new(archive));
    match (is_layout, is_saved) {
        (true, _) => layout(&place),
        (false, true) => saved::open(&place),
        (false, false) => Err(ImportError::NotARoot(
            "it is an archive of an image without manifest.json, as no `docker save` of the last ten \
             years writes it",
        )),
    }
}

fn layout(place: &Place) -> Result<Opened, ImportError> {
    let mut document = parse(&place.document(INDEX)?)?;
    for _ in 0..MAX_STEPS {
        match document {
            Document::Index(manifests) => {
                document = parse(&named(place, choose(&manifests)?, "manifest")?)?;
            }
            Document::Manifest(manifest) => return image(place, &manifest),
        }
    }
    Err(ImportError::NotARoot("its indexes lead nowhere"))
}

/// The image of a manifest, below a directory that has all its blobs where a layout has them.
pub(in crate::host::image) fn open_blobs(
    dir: &Path,
    manifest: Digest,
) -> Result<Opened, ImportError> {
    let place = Place::Directory(dir.to_owned());
    match parse(&checked(&place, manifest, "manifest")?)? {
        Document::Manifest(manifest) => image(&place, &manifest),
        Document::Index(_) => Err(ImportError::NotARoot("its manifest is an index")),
    }
}

/// What a manifest names, itself included, as far as it can be read.
pub(in crate::host::image) fn blobs_of(dir: &Path, manifest: Digest) -> Vec<Digest> {
    let bytes = Place::Directory(dir.to_owned()).document(&blob(manifest)).unwrap_or_default();
    let mut found = vec![manifest];
    if let Ok(Document::Manifest(manifest)) = parse(&bytes) {
        let named = manifest.layers.iter().chain([&manifest.config]);
        found.extend(named.filter_map(|blob| blob.digest().ok()));
    }
    found
}

fn named(place: &Place, of: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImportError> {
    checked(place, of.digest()?, what)
}

fn checked(place: &Place, digest: Digest, what: &'static str) -> Result<Vec<u8>, ImportError> {
    let bytes = place.document(&blob(digest))?;
    check(&bytes, digest, what)?;
    Ok(bytes)
}

fn image(place: &Place, manifest: &Manifest) -> Result<Opened, ImportError> {
    let config = Config::parse(&named(place, &manifest.config, "configuration")?)?;
    let diff_ids = config.diff_ids(manifest.layers.len())?;
    let layer = |(layer, diff_id): (&Descriptor, Digest)| {
        let digest = layer.digest()?;
        let item = place.item(&blob(digest))?;
        let found = item.bytes;
        if found != layer.size {
            return Err(DocumentError::Size { layer: digest, wanted: layer.size, found }.into());
        }
        let name = format!("sha256:{}", digest.short());
        Ok(Layer::new(name, found, Some(diff_id), move || item.open()))
    };
    let layers = manifest.layers.iter().zip(diff_ids).map(layer);
    let layers = layers.collect::<Result<_, ImportError>>()?;
    Ok(Opened { layers, config: config.run()? })
}

#[cfg(test)]
#[path = "layout_tests.rs"]
pub(super) mod tests;
