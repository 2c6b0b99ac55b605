//! `ImageHost` on the local file system.
//!
//! Owner of `<state>/{images,kernels,initrd,tmp,blobs}`. Long work runs on blocking threads and child
//! processes and heeds the cancellation token; dropping a future cancels its work too. Until the
//! last rename everything is in a work directory that goes with the work, however it ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ext4::Builder;
use super::import::{self, ImportError, Watch};
use super::registry::{Cache, Puller};
use super::shelf::Shelf;
use super::workdir::WorkDir;
use super::{commit, debian, export, kernel, layers, oci};
use crate::host::files::{blocking, gone};
use crate::host::memory::give_back;
use crate::model::{
    Code, Digest, ImageConfig, ImageLimits, ImageRef, OpId, RegistrySettings, Size,
};
use crate::ports::{
    BaseImage, BootFiles, ByteSink, CachedBlob, Fetched, HostError, ImageFile, ImageHost,
    ImageRecipe, ImageUsage, KernelFile, KernelRecipe, PortFuture, ProgressSink, PullSink,
    RootSource,
};

#[derive(Clone, Debug)]
pub struct LocalImages {
    shelf: Arc<Shelf>,
    /// Of images made of layers.
    limits: ImageLimits,
    puller: Puller,
}

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

impl LocalImages {
    /// Keeps everything below `state`; `agent_bin` becomes the initramfs's init.
    pub fn new(state: &Path, agent_bin: PathBuf) -> Result<Self, HostError> {
        let shelf = Arc::new(Shelf::new(state, agent_bin)?);
        let (cache, limits) = (Cache::new(state)?, ImageLimits::default());
        let puller = Puller::new(cache, RegistrySettings::default(), limits);
        Ok(Self { shelf, limits, puller })
    }

    #[must_use]
    pub fn with_limits(self, limits: ImageLimits) -> Self {
        let settings = self.puller.settings().clone();
        let puller = Puller::new(self.puller.cache().clone(), settings, limits);
        Self { limits, puller, ..self }
    }

    #[must_use]
    pub fn with_registries(self, settings: RegistrySettings) -> Self {
        let puller = Puller::new(self.puller.cache().clone(), settings, self.limits);
        Self { puller, ..self }
    }

    /// Reads all of an image and compares it with its digest; for `doctor`.
    pub async fn verify_image(
        &self,
        digest: Digest,
        cancel: &CancellationToken,
    ) -> Result<(), HostError> {
        let (shelf, stop) = (self.shelf.clone(), cancel.child_token());
        let _guard = stop.clone().drop_guard();
        blocking("verify image", move || shelf.verify_image(digest, &stop)).await
    }

    /// Reads all of a kernel and compares it with its manifest; for `doctor`.
    pub async fn verify_kernel(&self, digest: Digest) -> Result<(), HostError> {
        let shelf = self.shelf.clone();
        blocking("verify kernel", move || shelf.verify_kernel(digest)).await
    }

    async fn image(
        &self,
        op: OpId,
        recipe: &ImageRecipe,
        progress: ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<ImageFile, HostError> {
        let stop = cancel.child_token();
        let _guard = stop.clone().drop_guard();
        let (shelf, watch) = (self.shelf.clone(), Watch::new(progress.clone(), stop.clone()));
        match recipe {
            ImageRecipe::Tar { path } => {
                let (path, limits) = (path.clone(), self.limits);
                blocking("import image", move || {
                    let mut draft =
                        Draft::new(shelf, watch, "import", &path.display().to_string())?;
                    let file = open_archive(&path)?;
                    if let Some(config) = draft.archive(&path, &limits)? {
                        let file = draft.publish(format!("image archive {}", file_name(&path)))?;
                        return Ok(ImageFile { config: Some(config), ..file });
                    }
                    draft.tar(BufReader::with_capacity(1 << 18, file))?;
                    draft.publish(format!("tar {}", file_name(&path)))
                })
                .await
            }
            ImageRecipe::Directory { path } => {
                let (path, limits) = (path.clone(), self.limits);
                blocking("import image", move || {
                    let mut draft =
                        Draft::new(shelf, watch, "import", &path.display().to_string())?;
                    if oci::is_layout(&path) {
                        let config = draft.layout(&path, &limits)?;
                        let file = draft.publish(format!("OCI layout {}", file_name(&path)))?;
                        return Ok(ImageFile { config: Some(config), ..file });
                    }
                    draft.directory(&path)?;
                    draft.publish(format!("directory {}", file_name(&path)))
                })
                .await
            }
            ImageRecipe::Fetched { image, root, manifest } => {
                let (image, limits) = (image.pinned(*root), self.limits);
                let (cache, manifest) = (self.puller.cache().clone(), *manifest);
                blocking("make image", move || {
                    let mut draft = Draft::new(shelf, watch, "make image of", &image.to_string())?;
                    let config = draft.blobs(&cache, manifest, &limits)?;
                    let file = draft.publish(image.to_string())?;
                    Ok(ImageFile { config: Some(config), ..file })
                })
                .await
            }
            ImageRecipe::Root { vm, base, root, config } => {
                let (base, root, limits) = (*base, root.clone(), self.limits);
                let (vm, config) = (vm.clone(), config.as_deref().cloned());
                blocking("commit", move || {
                    let base = shelf.base(base)?.path;
                    let mut draft = Draft::new(shelf, watch, "commit", &vm)?;
                    draft.root(&root, &base, &limits)?;
                    Ok(ImageFile { config, ..draft.publish(format!("root of {vm}"))? })
                })
                .await
            }
            ImageRecipe::Debian { suite, include, mirror } => {
                let order = debian::Order::new(suite, include, mirror.as_deref())?;
                tracing::info!(op_id = %op, suite, "building a Debian image");
                let draft =
                    blocking("build image", move || Draft::new(shelf, watch, "build", "image"))
                        .await?;
                debian::build(order, draft, progress, stop).await
            }
        }
    }

    async fn kernel(
        &self,
        recipe: &KernelRecipe,
        progress: ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<KernelFile, HostError> {
        let stop = cancel.child_token();
        let _guard = stop.clone().drop_guard();
        let (shelf, recipe) = (self.shelf.clone(), recipe.clone());
        blocking("import kernel", move || {
            let work = WorkDir::new(&shelf.tmp)?;
            let spill = create(&work.file("modules"))?;
            let (made, source) = match &recipe {
                KernelRecipe::Packages { paths } => {
                    let made = kernel::from_packages(paths, spill, &progress, &stop)?;
                    let names: Vec<_> = paths.iter().map(|path| file_name(path)).collect();
                    (made, names.join(" "))
                }
                KernelRecipe::Files { kernel: file, modules } => {
                    let made =
                        kernel::from_files(file, modules.as_deref(), spill, &progress, &stop)?;
                    (made, file_name(file))
                }
            };
            shelf.put_kernel(&made, source)
        })
        .await
    }
}

impl Draft {
    fn new(
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

    fn root(
        &mut self,
        root: &RootSource,
        base: &Path,
        limits: &ImageLimits,
    ) -> Result<(), HostError> {
        let read = commit::read_root(root, base, limits, &mut self.builder, &mut self.watch);
        read.map_err(|error| error.on(self.operation, &self.object))
    }

    fn directory(&mut self, path: &Path) -> Result<(), HostError> {
        let done = import::from_dir(path, &mut self.builder, &mut self.watch);
        done.map_err(|error| error.on(self.operation, &self.object))
    }

    fn layout(&mut self, path: &Path, limits: &ImageLimits) -> Result<ImageConfig, HostError> {
        let merged = oci::open_layout(path).and_then(|opened| self.merge(opened, limits));
        merged.map_err(|error| error.on(self.operation, &self.object))
    }

    /// `None`: it is not the archive of an image.
    fn archive(
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

    fn merge(
        &mut self,
        opened: oci::Opened,
        limits: &ImageLimits,
    ) -> Result<ImageConfig, ImportError> {
        layers::merge(&opened.layers, limits, &mut self.builder, &mut self.watch)?;
        Ok(opened.config)
    }

    /// Of what a registry gave. A blob that was damaged since is removed, so that the next pull
    /// brings it again.
    fn blobs(
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
        if seeded {
            shelf.put_seed(&work.file(SEED), built.digest)?;
        }
        shelf.put_image(&work.file(DRAFT), built)?;
        let size = Size::from_bytes(built.bytes);
        (watch.progress)(format!("{entries} files, {size}"));
        Ok(ImageFile { digest: built.digest, uuid: built.uuid, size, source, config: None })
    }
}

const DRAFT: &str = "rootfs.ext4";
/// What a guest has its work disk for.
const HOME: &str = "root";
const SEED: &str = "work.ext4";

fn create(path: &Path) -> Result<File, HostError> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| HostError::io("make", path.display().to_string(), error))
}

/// A pipe would do as well, but a device or a directory would not.
fn open_archive(path: &Path) -> Result<File, HostError> {
    let named = || path.display().to_string();
    let failed = |error: io::Error| HostError::io("open", named(), error);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(HostError::new(Code::Invalid, "import", named())
            .because("it is neither a file nor a directory"));
    }
    File::open(path).map_err(failed)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl ImageHost for LocalImages {
    fn fetch_image<'a>(
        &'a self,
        op: OpId,
        image: &'a ImageRef,
        known: Option<Digest>,
        sink: PullSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, Fetched> {
        tracing::info!(op_id = %op, %image, "pulling an image");
        Box::pin(async move { self.puller.pull(image, known, &sink, cancel).await })
    }

    fn make_image<'a>(
        &'a self,
        op: OpId,
        recipe: &'a ImageRecipe,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ImageFile> {
        Box::pin(async move {
            let made = self.image(op, recipe, progress, cancel).await;
            give_back();
            made
        })
    }

    fn make_kernel<'a>(
        &'a self,
        op: OpId,
        recipe: &'a KernelRecipe,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, KernelFile> {
        tracing::info!(op_id = %op, ?recipe, "importing a kernel");
        Box::pin(async move {
            let made = self.kernel(recipe, progress, cancel).await;
            give_back();
            made
        })
    }

    fn base(&self, op: OpId, image: Digest) -> PortFuture<'_, BaseImage> {
        let shelf = self.shelf.clone();
        tracing::debug!(op_id = %op, %image, "checking image");
        Box::pin(blocking("check image", move || shelf.base(image)))
    }

    fn work_seed(&self, op: OpId, image: Digest, size: Size) -> PortFuture<'_, Option<PathBuf>> {
        let shelf = self.shelf.clone();
        tracing::debug!(op_id = %op, %image, %size, "looking for a work seed");
        Box::pin(blocking("make work seed", move || shelf.work_seed(image, size)))
    }

    fn boot_files(&self, op: OpId, image: Digest, kernel: Digest) -> PortFuture<'_, BootFiles> {
        let shelf = self.shelf.clone();
        tracing::debug!(op_id = %op, %image, %kernel, "checking boot files");
        Box::pin(blocking("check boot files", move || shelf.boot_files(image, kernel)))
    }

    fn export<'a>(
        &'a self,
        op: OpId,
        image: Digest,
        name: &'a str,
        config: &'a ImageConfig,
        to: ByteSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()> {
        tracing::info!(op_id = %op, %image, name, "exporting an image");
        let (shelf, stop) = (self.shelf.clone(), cancel.child_token());
        let (name, config) = (name.to_owned(), config.clone());
        Box::pin(async move {
            let _guard = stop.clone().drop_guard();
            blocking("export image", move || {
                let file = shelf.open_image(image)?;
                let mut watch = Watch::new(Arc::new(|_| {}), stop);
                let mut out = export::Pieces::new(to);
                let done = export::export(file, &name, &config, &mut out, &mut watch);
                done.map_err(|error| error.on("export", &name))
            })
            .await
        })
    }

    fn usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, ImageUsage>> {
        let shelf = self.shelf.clone();
        Box::pin(blocking("measure images", move || shelf.usage()))
    }

    fn sweep<'a>(&'a self, op: OpId, known: &'a [Digest]) -> PortFuture<'a, u32> {
        let (shelf, known, puller) = (self.shelf.clone(), known.to_vec(), self.puller.clone());
        Box::pin(blocking("sweep", move || {
            let mut removed = shelf.sweep(&known)? + debian::sweep();
            for blob in puller.surplus()? {
                gone(std::fs::remove_file(&blob))
                    .map_err(|error| HostError::io("sweep", blob.display().to_string(), error))?;
                removed += 1;
            }
            tracing::debug!(op_id = %op, removed, "swept leftovers");
            Ok(removed)
        }))
    }

    fn blobs(&self, _op: OpId) -> PortFuture<'_, Vec<CachedBlob>> {
        let cache = self.puller.cache().clone();
        Box::pin(blocking("look at the cache", move || {
            let named = cache.dir().display().to_string();
            cache.list().map_err(|error| HostError::io("look at the cache", named, error))
        }))
    }

    fn empty_cache(&self, op: OpId) -> PortFuture<'_, ()> {
        let cache = self.puller.cache().clone();
        tracing::info!(op_id = %op, "emptying the cache of registries");
        Box::pin(blocking("empty the cache", move || {
            let named = cache.dir().display().to_string();
            cache.empty().map_err(|error| HostError::io("empty the cache", named, error))
        }))
    }

    fn leftovers<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, Vec<PathBuf>> {
        let (shelf, known, puller) = (self.shelf.clone(), known.to_vec(), self.puller.clone());
        Box::pin(blocking("list leftovers", move || {
            let mut found = shelf.leftovers(&known)?;
            found.extend(puller.surplus()?);
            Ok(found)
        }))
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
