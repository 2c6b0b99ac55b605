//! `ImageHost` on the local file system.
//!
//! Owner of `<state>/{images,kernels,initrd,tmp,blobs}`. Long work runs on blocking threads and child
//! processes and heeds the cancellation token; dropping a future cancels its work too. Until the
//! last rename everything is in a work directory that goes with the work, however it ends.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::apt::Apt;
use super::bundle::{self, BundleError, Contents};
use super::draft::{Draft, bundled_kernel, create, file_name, open_archive, without_damage};
use super::import::{ImportError, Watch};
use super::registry::{Cache, Puller};
use super::shelf::Shelf;
use super::workdir::WorkDir;
use super::{buildah, debian, export, kernel, oci};
use crate::host::files::{blocking, gone};
use crate::host::memory::give_back;
use crate::model::{
    DebianKernel, Digest, ImageLimits, ImageRef, KernelOffer, Name, OpId, RegistrySettings, Size,
};
use crate::ports::{
    BaseImage, BootFiles, ByteSink, CachedBlob, Download, Export, Fetched, HostError, ImageFile,
    ImageHost, ImageRecipe, ImageUsage, KernelFile, KernelRecipe, KernelUsage, PortFuture,
    ProgressSink, PullSink,
};

#[derive(Clone, Debug)]
pub struct LocalImages {
    shelf: Arc<Shelf>,
    /// Of images made of layers.
    limits: ImageLimits,
    puller: Puller,
    apt: Arc<Apt>,
}

impl LocalImages {
    /// Keeps everything below `state`; `agent_bin` becomes the initramfs's init.
    pub fn new(state: &Path, agent_bin: PathBuf) -> Result<Self, HostError> {
        let shelf = Arc::new(Shelf::new(state, agent_bin)?);
        let (cache, limits) = (Cache::new(state)?, ImageLimits::default());
        let puller = Puller::new(cache, RegistrySettings::default(), limits);
        let apt = Arc::new(Apt::new(state));
        Ok(Self { shelf, limits, puller, apt })
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

    /// `config` is apt's, besides the host's.
    #[must_use]
    pub fn with_apt_config(self, config: Option<PathBuf>) -> Self {
        Self { apt: Arc::new(self.apt.with_config(config)), ..self }
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
                    if let Some(bundle) = draft.open_bundle(&path, &limits)? {
                        return draft.bundle(
                            bundle,
                            &limits,
                            format!("bundle {}", file_name(&path)),
                        );
                    }
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
            ImageRecipe::Bundle { blob, source } => {
                let (blob, source, limits) = (*blob, source.clone(), self.limits);
                let cache = self.puller.cache().clone();
                blocking("make image", move || {
                    let draft = Draft::new(shelf, watch, "make image of", &source)?;
                    let made = draft.open_bundle(&cache.path(blob), &limits).and_then(|opened| {
                        let opened = opened.ok_or(BundleError::NotABundle);
                        let opened = opened
                            .map_err(|error| ImportError::from(error).on("make image of", &source));
                        draft.bundle(opened?, &limits, source.clone())
                    });
                    without_damage(made, &cache, blob)
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
            ImageRecipe::Containerfile(order) => {
                let (named, limits) = (order.context.display().to_string(), self.limits);
                tracing::info!(op_id = %op, context = %named, "building a Containerfile");
                let tmp = shelf.tmp.clone();
                let work = blocking("build image", move || WorkDir::new(&tmp)).await?;
                let built = buildah::build(order.clone(), work, progress, stop).await?;
                blocking("make image", move || {
                    let (_work, archive) = built;
                    let mut draft = Draft::new(shelf, watch, "make image of", &named)?;
                    let config = draft.archive(&archive, &limits)?;
                    let file = draft.publish(format!("Containerfile {named}"))?;
                    Ok(ImageFile { config, ..file })
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
        let (limits, cache) = (self.limits, self.puller.cache().clone());
        let tmp = self.shelf.tmp.clone();
        let work = blocking("make work directory", move || WorkDir::new(&tmp)).await?;
        let pulled = match &recipe {
            KernelRecipe::Debian { offer } => {
                self.apt.download(offer, work.path(), &progress, &stop).await?
            }
            _ => vec![],
        };
        blocking("import kernel", move || {
            let watch = || Watch::new(progress.clone(), stop.clone());
            let spill = create(&work.file("modules"))?;
            let (made, source) = match &recipe {
                KernelRecipe::Bundle { blob, source } => {
                    let made = bundled_kernel(&cache.path(*blob), source, &limits, watch());
                    let made = made.and_then(|made| {
                        let none = || ImportError::from(BundleError::NotABundle);
                        made.ok_or_else(|| none().on("import kernel", source))
                    });
                    (without_damage(made, &cache, *blob)?, source.clone())
                }
                KernelRecipe::Packages { paths } => {
                    if let [path] = paths.as_slice()
                        && let Some(made) =
                            bundled_kernel(path, &path.display().to_string(), &limits, watch())?
                    {
                        return shelf.put_kernel(&made, format!("bundle {}", file_name(path)));
                    }
                    let made = kernel::from_packages(paths, spill, &progress, &stop)?;
                    let names: Vec<_> = paths.iter().map(|path| file_name(path)).collect();
                    (made, names.join(" "))
                }
                KernelRecipe::Debian { offer } => {
                    let made = kernel::from_packages(&pulled, spill, &progress, &stop)?;
                    (made, offer.source())
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

    fn fetch_file<'a>(
        &'a self,
        op: OpId,
        download: &'a Download,
        sink: PullSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()> {
        tracing::info!(op_id = %op, digest = %download.digest, "downloading a file");
        Box::pin(async move { self.puller.download(download, &sink, cancel).await })
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

    fn find_kernel<'a>(
        &'a self,
        op: OpId,
        asked: &'a DebianKernel,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, KernelOffer> {
        tracing::info!(op_id = %op, package = asked.package(), "looking for a kernel");
        Box::pin(async move { self.apt.find(asked, &progress, cancel).await })
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
        what: &'a Export,
        name: &'a Name,
        to: ByteSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()> {
        tracing::info!(op_id = %op, %name, "exporting");
        let (shelf, stop) = (self.shelf.clone(), cancel.child_token());
        let (name, what) = (name.clone(), what.clone());
        Box::pin(async move {
            let _guard = stop.clone().drop_guard();
            blocking("export", move || {
                let mut watch = Watch::new(Arc::new(|_| {}), stop);
                let mut out = export::Pieces::new(to);
                let done = match what {
                    Export::Layout { image, config } => {
                        let file = shelf.open_image(image)?;
                        export::export(file, name.as_str(), &config, &mut out, &mut watch)
                    }
                    Export::ImageBundle { image, config, kernel } => {
                        let file = shelf.open_image(image)?;
                        let contents = Contents::Image { kernel, config };
                        bundle::image(&name, image, contents, file, &mut out, &watch)
                    }
                    Export::KernelBundle { kernel, features } => {
                        let (said, files) = shelf.open_kernel(kernel, features)?;
                        bundle::kernel(&name, kernel, said, files, &mut out, &watch)
                    }
                };
                done.map_err(|error| error.on("export", name.as_str()))
            })
            .await
        })
    }

    fn usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, ImageUsage>> {
        let shelf = self.shelf.clone();
        Box::pin(blocking("measure images", move || shelf.usage()))
    }

    fn kernel_usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, KernelUsage>> {
        let shelf = self.shelf.clone();
        Box::pin(blocking("measure kernels", move || shelf.kernel_usage()))
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
