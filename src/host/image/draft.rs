//! An image in the making: everything that it is made of is in a work directory, which goes with it, until
//! the shelf takes it in. Blocking.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use super::bundle::{self, Bundle, BundleError, Contents, Sound};
use super::ext4::Builder;
use super::import::{self, ImportError, Watch};
use super::registry::Cache;
use super::shelf::{self, Shelf};
use super::workdir::WorkDir;
use super::{commit, kernel, layers, oci};
use crate::model::{Code, Digest, ImageConfig, ImageLimits, Size};
use crate::ports::{HostError, ImageFile, RootSource};

/// An image in the making.
#[derive(Debug)]
pub(super) struct Draft {
    work: WorkDir,
    builder: Builder,
    watch: Watch,
    shelf: Arc<Shelf>,
    /// Of errors: what was done to what.
    operation: &'static str,
    object: String,
}

impl Draft {
    pub(super) fn new(
        shelf: Arc<Shelf>,
        watch: Watch,
        operation: &'static str,
        object: &str,
    ) -> Result<Self, HostError> {
        let work = WorkDir::new(&shelf.tmp)?;
        let builder = Builder::new(create(&work.file(DRAFT))?);
        Ok(Self { work, builder, watch, shelf, operation, object: object.to_owned() })
    }

    /// Adds an archive's entries.
    pub(super) fn tar(&mut self, from: impl BufRead + Send + 'static) -> Result<(), HostError> {
        let done = import::from_tar(from, &mut self.builder, &mut self.watch);
        done.map_err(|error| error.on(self.operation, &self.object))
    }

    pub(super) fn root(
        &mut self,
        root: &RootSource,
        base: &Path,
        limits: &ImageLimits,
    ) -> Result<(), HostError> {
        let read = commit::read_root(root, base, limits, &mut self.builder, &mut self.watch);
        read.map_err(|error| error.on(self.operation, &self.object))
    }

    pub(super) fn directory(&mut self, path: &Path) -> Result<(), HostError> {
        let done = import::from_dir(path, &mut self.builder, &mut self.watch);
        done.map_err(|error| error.on(self.operation, &self.object))
    }

    pub(super) fn layout(
        &mut self,
        path: &Path,
        limits: &ImageLimits,
    ) -> Result<ImageConfig, HostError> {
        let merged = oci::open_layout(path).and_then(|opened| self.merge(opened, limits));
        merged.map_err(|error| error.on(self.operation, &self.object))
    }

    /// `None`: it is not the archive of an image.
    pub(super) fn archive(
        &mut self,
        path: &Path,
        limits: &ImageLimits,
    ) -> Result<Option<ImageConfig>, HostError> {
        let spill = self.work.file("archive");
        let merged = oci::Archive::open(path, &spill, limits, &self.watch).and_then(|archive| {
            let opened = archive.map(oci::open_archive).transpose()?;
            opened.map(|opened| self.merge(opened, limits)).transpose()
        });
        merged.map_err(|error| error.on(self.operation, &self.object))
    }

    /// `None`: it is none.
    pub(super) fn open_bundle(
        &self,
        path: &Path,
        limits: &ImageLimits,
    ) -> Result<Option<Bundle>, HostError> {
        let opened = open_bundle(path, limits, &self.watch);
        opened.map_err(|error| error.on(self.operation, &self.object))
    }

    /// Takes the file system over as it is.
    pub(super) fn bundle(
        self,
        bundle: Bundle,
        limits: &ImageLimits,
        source: String,
    ) -> Result<ImageFile, HostError> {
        let Self { work, mut watch, shelf, operation, object, .. } = self;
        let failed = |error: ImportError| error.on(operation, &object);
        let Contents::Image { kernel, config } = bundle.manifest.contents.clone() else {
            return Err(failed(BundleError::OtherKind("a kernel").into()));
        };
        let file = File::options().read(true).write(true).open(work.file(DRAFT));
        let file = file.map_err(|error| failed(ImportError::Open(error)))?;
        let seed = create(&work.file(SEED))?;
        let accepted = bundle::accept(bundle, &file, HOME, seed, limits, &mut watch);
        let sound = accepted.map_err(failed)?;
        let file = shelve(&shelf, &work, &watch, sound, source)?;
        Ok(ImageFile { config, kernel, ..file })
    }

    pub(super) fn merge(
        &mut self,
        opened: oci::Opened,
        limits: &ImageLimits,
    ) -> Result<ImageConfig, ImportError> {
        layers::merge(&opened.layers, limits, &mut self.builder, &mut self.watch)?;
        Ok(opened.config)
    }

    /// Of what a registry gave. A blob that was damaged since is removed, so that the next pull
    /// brings it again.
    pub(super) fn blobs(
        &mut self,
        cache: &Cache,
        manifest: Digest,
        limits: &ImageLimits,
    ) -> Result<ImageConfig, HostError> {
        let done = oci::open_blobs(cache.dir(), manifest);
        let done = done.and_then(|opened| self.merge(opened, limits));
        let done = done.map_err(|error| error.on(self.operation, &self.object));
        if let Err(error) = &done
            && matches!(error.code, Code::Corrupt | Code::NotFound)
        {
            let failed = |error| HostError::io("verify blobs of", &self.object, error);
            for blob in oci::blobs_of(cache.dir(), manifest) {
                cache.remove_if_damaged(blob).map_err(failed)?;
            }
        }
        done
    }

    /// Finishes the file system and puts it on the shelf.
    pub(super) fn publish(self, source: String) -> Result<ImageFile, HostError> {
        let Self { work, mut builder, watch, shelf, operation, object } = self;
        let failed = |error: ImportError| error.on(operation, &object);
        import::check_root(&builder).map_err(failed)?;
        let entries = builder.entries();
        let seeded = builder.has_in(HOME);
        if seeded {
            let seed = builder.seed(HOME, create(&work.file(SEED))?);
            seed.and_then(Builder::finish).map_err(|error| failed(error.into()))?;
        }
        let built = builder.finish().map_err(|error| failed(error.into()))?;
        if watch.cancel.is_cancelled() {
            return Err(failed(ImportError::Cancelled));
        }
        shelve(&shelf, &work, &watch, Sound { built, entries, seeded }, source)
    }
}

/// The work seed comes first, so that no image is without its own.
fn shelve(
    shelf: &Shelf,
    work: &WorkDir,
    watch: &Watch,
    made: Sound,
    source: String,
) -> Result<ImageFile, HostError> {
    let Sound { built, entries, seeded } = made;
    if seeded {
        shelf.put_seed(&work.file(SEED), built.digest)?;
    }
    shelf.put_image(&work.file(DRAFT), built)?;
    let size = Size::from_bytes(built.bytes);
    (watch.progress)(format!("{entries} files, {size}"));
    let (config, kernel) = (None, None);
    Ok(ImageFile { digest: built.digest, uuid: built.uuid, size, source, config, kernel })
}

fn open_bundle(
    path: &Path,
    limits: &ImageLimits,
    watch: &Watch,
) -> Result<Option<Bundle>, ImportError> {
    let file = File::open(path).map_err(ImportError::Open)?;
    let packed = file.metadata().map_err(ImportError::Open)?.len();
    Bundle::open(BufReader::with_capacity(1 << 18, file), packed, limits, watch)
}

/// `None`: it is no bundle.
pub(super) fn bundled_kernel(
    path: &Path,
    object: &str,
    limits: &ImageLimits,
    mut watch: Watch,
) -> Result<Option<kernel::Prepared>, HostError> {
    let mut read = || {
        let Some(bundle) = open_bundle(path, limits, &watch)? else { return Ok(None) };
        if !matches!(bundle.manifest.contents, Contents::Kernel(_)) {
            return Err(BundleError::OtherKind("an image").into());
        }
        let (made, wanted) = bundle::prepared(bundle, &mut watch)?;
        let found = shelf::kernel_digest(&made);
        if found != wanted {
            return Err(BundleError::Content { what: "kernel", wanted, found }.into());
        }
        Ok(Some(made))
    };
    read().map_err(|error: ImportError| error.on("import kernel", object))
}

/// What was damaged while it lay in the cache is removed, so that it is fetched again.
pub(super) fn without_damage<T>(
    made: Result<T, HostError>,
    cache: &Cache,
    blob: Digest,
) -> Result<T, HostError> {
    let mut error = match made {
        Err(error) if matches!(error.code, Code::Corrupt | Code::Invalid) => error,
        other => return other,
    };
    let removed = cache.remove_if_damaged(blob);
    if removed.map_err(|error| HostError::io("verify blob", blob.short(), error))? {
        error.code = Code::Corrupt;
    }
    Err(error)
}

const DRAFT: &str = "rootfs.ext4";
/// What a guest has its work disk for.
const HOME: &str = "root";
const SEED: &str = "work.ext4";

pub(super) fn create(path: &Path) -> Result<File, HostError> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| HostError::io("make", path.display().to_string(), error))
}

/// A pipe would do as well, but a device or a directory would not.
pub(super) fn open_archive(path: &Path) -> Result<File, HostError> {
    let named = || path.display().to_string();
    let failed = |error: io::Error| HostError::io("open", named(), error);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(HostError::new(Code::Invalid, "import", named())
            .because("it is neither a file nor a directory"));
    }
    File::open(path).map_err(failed)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
