//! A directory with images as the OCI lays them out: `oci-layout`, `index.json`, `blobs`. Blocking.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::document::{
    Config, Descriptor, Document, DocumentError, MAX_DOCUMENT, Manifest, check, choose, parse,
};
use crate::host::image::import::ImportError;
use crate::host::image::layers::Layer;
use crate::model::Digest;

const BUFFER: usize = 256 << 10;
/// An index may lead to an index; nobody goes further.
const MAX_STEPS: usize = 4;

pub(in crate::host::image) fn is_layout(dir: &Path) -> bool {
    dir.join("oci-layout").is_file() && dir.join("index.json").is_file()
}

/// The layers of the one image for this platform, the lowest first.
pub(in crate::host::image) fn open(dir: &Path) -> Result<Vec<Layer>, ImportError> {
    let blobs = Blobs(dir.join("blobs/sha256"));
    let index = dir.join("index.json");
    let bytes = read(&index).map_err(|error| failed(&index, error))?;
    let mut document = parse(&bytes)?;
    for _ in 0..MAX_STEPS {
        match document {
            Document::Index(manifests) => {
                document = parse(&blobs.document(choose(&manifests)?, "manifest")?)?;
            }
            Document::Manifest(manifest) => return blobs.layers(&manifest),
        }
    }
    Err(ImportError::NotARoot("its indexes lead nowhere"))
}

/// Files that are named by their digests.
struct Blobs(PathBuf);

impl Blobs {
    fn path(&self, digest: Digest) -> PathBuf {
        self.0.join(digest.to_string())
    }

    fn document(&self, of: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImportError> {
        let digest = of.digest()?;
        let path = self.path(digest);
        let bytes = read(&path).map_err(|error| failed(&path, error))?;
        check(&bytes, digest, what)?;
        Ok(bytes)
    }

    fn layers(&self, manifest: &Manifest) -> Result<Vec<Layer>, ImportError> {
        let config = Config::parse(&self.document(&manifest.config, "configuration")?)?;
        let diff_ids = config.diff_ids(manifest.layers.len())?;
        let layer = |(layer, diff_id): (&Descriptor, Digest)| {
            let digest = layer.digest()?;
            let path = self.path(digest);
            let found = std::fs::metadata(&path).map_err(|error| failed(&path, error))?.len();
            if found != layer.size {
                return Err(DocumentError::Size { layer: digest, wanted: layer.size, found }.into());
            }
            let open = move || -> io::Result<Box<dyn io::BufRead + Send>> {
                Ok(Box::new(BufReader::with_capacity(BUFFER, File::open(&path)?)))
            };
            Ok(Layer::new(format!("sha256:{}", digest.short()), found, Some(diff_id), open))
        };
        manifest.layers.iter().zip(diff_ids).map(layer).collect()
    }
}

/// A document is small; what is not is none.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 4 MiB"));
    }
    Ok(bytes)
}

fn failed(path: &Path, source: io::Error) -> ImportError {
    ImportError::Read { path: path.display().to_string(), source }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
