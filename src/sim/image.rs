//! Images and kernels whose digests come from their recipes, so that the same recipe gives the
//! same file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::FutureExt;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::SimWorld;
use super::state::State;
use crate::model::{
    Code, DebianKernel, Digest, ImageConfig, ImageRef, KernelConfig, KernelFeatures, KernelOffer,
    ModuleSeen, Name, OpId, Size, Transfer, kernel_features,
};
use crate::ports::{
    BaseImage, BootFiles, ByteSink, CachedBlob, Download, Export, Fetched, HostError, ImageFile,
    ImageHost, ImageRecipe, ImageUsage, KernelFile, KernelRecipe, KernelUsage, PortFuture,
    ProgressSink, PullSink,
};

impl ImageHost for SimWorld {
    /// The registry has every image; what its tags stand for, [`SimWorld::move_tags`] changes.
    fn fetch_image<'a>(
        &'a self,
        _op: OpId,
        image: &'a ImageRef,
        known: Option<Digest>,
        sink: PullSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, Fetched> {
        let fetch = move |state: &mut State| {
            refuse_cancelled("pull", cancel)?;
            let root = image.digest().unwrap_or_else(|| digest_of(&(image, state.tags_moved)));
            if known == Some(root) {
                return Ok(Fetched { root, manifest: None });
            }
            state.world.blobs.insert(root);
            (sink.transfer)(whole(root));
            Ok(Fetched { root, manifest: Some(root) })
        };
        self.call("images.fetch_image", fetch).boxed()
    }

    /// Everything is everywhere.
    fn fetch_file<'a>(
        &'a self,
        _op: OpId,
        download: &'a Download,
        sink: PullSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()> {
        let fetch = move |state: &mut State| {
            refuse_cancelled("download", cancel)?;
            (sink.transfer)(whole(download.digest));
            state.world.blobs.insert(download.digest);
            Ok(())
        };
        self.call("images.fetch_file", fetch).boxed()
    }

    fn make_image<'a>(
        &'a self,
        _op: OpId,
        recipe: &'a ImageRecipe,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ImageFile> {
        let make = move |state: &mut State| {
            refuse_cancelled("make image", cancel)?;
            if let ImageRecipe::Tar { path } | ImageRecipe::Directory { path } = recipe {
                must_exist("read", path)?;
            }
            if let ImageRecipe::Bundle { blob, .. } = recipe {
                must_be_fetched(state, *blob)?;
            }
            progress("simulated: nothing to unpack".to_owned());
            let digest = digest_of(recipe);
            let source = match recipe {
                ImageRecipe::Debian { suite, .. } => format!("mmdebstrap {suite}"),
                ImageRecipe::Containerfile(order) => {
                    format!("Containerfile {}", order.context.display())
                }
                ImageRecipe::Tar { path } => format!("tar {}", path.display()),
                ImageRecipe::Directory { path } => format!("directory {}", path.display()),
                ImageRecipe::Bundle { source, .. } => source.clone(),
                ImageRecipe::Fetched { image, root, .. } => image.pinned(*root).to_string(),
                ImageRecipe::Root { vm, base, .. } => {
                    let missing = || HostError::new(Code::NotFound, "read", base.short());
                    state.world.images.get(base).ok_or_else(missing)?;
                    format!("root of {vm}")
                }
            };
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&digest.0[..16]);
            let size = Size::from_mib(64);
            let config = said_by(recipe);
            let file = ImageFile { digest, uuid, size, source, config, kernel: None };
            state.world.images.insert(digest, file.clone());
            Ok(file)
        };
        self.call("images.make_image", make).boxed()
    }

    /// Its archive has every package; what is the newest, [`SimWorld::move_tags`] changes.
    fn find_kernel<'a>(
        &'a self,
        _op: OpId,
        asked: &'a DebianKernel,
        _progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, KernelOffer> {
        let find = move |state: &mut State| {
            refuse_cancelled("find kernel", cancel)?;
            let version = format!("6.1.{}", state.tags_moved);
            Ok(KernelOffer { package: asked.package().to_owned(), version, others: vec![] })
        };
        self.call("images.find_kernel", find).boxed()
    }

    fn make_kernel<'a>(
        &'a self,
        _op: OpId,
        recipe: &'a KernelRecipe,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, KernelFile> {
        let make = move |state: &mut State| {
            refuse_cancelled("make kernel", cancel)?;
            let paths = match recipe {
                KernelRecipe::Packages { paths } => paths.iter().collect(),
                KernelRecipe::Files { kernel, .. } => vec![kernel],
                KernelRecipe::Bundle { blob, .. } => {
                    must_be_fetched(state, *blob)?;
                    vec![]
                }
                KernelRecipe::Debian { .. } => vec![],
            };
            paths.iter().try_for_each(|path| must_exist("read", path))?;
            progress("simulated: nothing to unpack".to_owned());
            let file = KernelFile {
                digest: digest_of(recipe),
                version: "0.0.0-sim".to_owned(),
                distro: "simulated".to_owned(),
                arch: "x86_64".to_owned(),
                modules: 0,
                size: Size::from_mib(16),
                source: match recipe {
                    KernelRecipe::Bundle { source, .. } => source.clone(),
                    KernelRecipe::Debian { offer } => offer.source(),
                    _ => paths.first().map_or_else(String::new, |path| path.display().to_string()),
                },
                features: features_of(&paths),
            };
            state.world.kernels.insert(file.digest, file.clone());
            Ok(file)
        };
        self.call("images.make_kernel", make).boxed()
    }

    fn base(&self, _op: OpId, image: Digest) -> PortFuture<'_, BaseImage> {
        self.call("images.base", move |state: &mut State| base(state, image)).boxed()
    }

    fn work_seed(&self, _op: OpId, image: Digest, _size: Size) -> PortFuture<'_, Option<PathBuf>> {
        let look = move |state: &mut State| {
            base(state, image).map(|_| Some(format!("/sim/images/{image}.work").into()))
        };
        self.call("images.work_seed", look).boxed()
    }

    fn boot_files(&self, _op: OpId, image: Digest, kernel: Digest) -> PortFuture<'_, BootFiles> {
        let look = move |state: &mut State| {
            let base = base(state, image)?;
            kernel_of(state, kernel)?;
            Ok(BootFiles {
                base,
                kernel: format!("/sim/kernels/{kernel}/vmlinux").into(),
                initrd: format!("/sim/kernels/{kernel}/initrd").into(),
            })
        };
        self.call("images.boot_files", look).boxed()
    }

    fn sweep<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, u32> {
        let sweep = move |state: &mut State| {
            let (images, kernels) = (&mut state.world.images, &mut state.world.kernels);
            let before = images.len() + kernels.len();
            images.retain(|digest, _| known.contains(digest));
            kernels.retain(|digest, _| known.contains(digest));
            let files = std::mem::take(&mut state.world.leftovers).len();
            let (images, kernels) = (&state.world.images, &state.world.kernels);
            Ok(u32::try_from(before - images.len() - kernels.len() + files).unwrap_or(u32::MAX))
        };
        self.call("images.sweep", sweep).boxed()
    }

    fn export<'a>(
        &'a self,
        _op: OpId,
        what: &'a Export,
        name: &'a Name,
        mut to: ByteSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()> {
        let look = move |state: &mut State| {
            refuse_cancelled("export", cancel)?;
            match what {
                Export::Layout { image, .. } | Export::ImageBundle { image, .. } => {
                    base(state, *image).map(drop)
                }
                Export::KernelBundle { kernel, .. } => kernel_of(state, *kernel),
            }
        };
        let name = name.clone();
        async move {
            self.call("images.export", look).await?;
            // The sink may block.
            let said = move || to(format!("simulated: {name}").into_bytes());
            drop(tokio::task::spawn_blocking(said).await);
            Ok(())
        }
        .boxed()
    }

    fn usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, ImageUsage>> {
        let look = move |state: &mut State| {
            let images = state.world.images.iter();
            let usage = |file: &ImageFile| ImageUsage { file: file.size.bytes(), seeds: 1 << 20 };
            Ok(images.map(|(digest, file)| (*digest, usage(file))).collect())
        };
        self.call("images.usage", look).boxed()
    }

    fn blobs(&self, _op: OpId) -> PortFuture<'_, Vec<CachedBlob>> {
        let blob = |digest: &Digest| CachedBlob {
            digest: *digest,
            bytes: 1,
            whole: true,
            used_unix_ms: 0,
        };
        let look = move |state: &mut State| Ok(state.world.blobs.iter().map(blob).collect());
        self.call("images.blobs", look).boxed()
    }

    fn empty_cache(&self, _op: OpId) -> PortFuture<'_, ()> {
        let empty = |state: &mut State| {
            state.world.blobs.clear();
            Ok(())
        };
        self.call("images.empty_cache", empty).boxed()
    }

    fn kernel_usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, KernelUsage>> {
        let look = move |state: &mut State| {
            let kernels = state.world.kernels.iter();
            let usage =
                |file: &KernelFile| KernelUsage { files: file.size.bytes(), initrds: 1 << 20 };
            Ok(kernels.map(|(digest, file)| (*digest, usage(file))).collect())
        };
        self.call("images.kernel_usage", look).boxed()
    }

    fn leftovers<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, Vec<PathBuf>> {
        let look = move |state: &mut State| {
            let digests = state.world.images.keys().chain(state.world.kernels.keys());
            let nameless = digests.filter(|digest| !known.contains(digest));
            let nameless = nameless.map(|digest| format!("/sim/images/{digest}").into());
            Ok(nameless.chain(state.world.leftovers.iter().cloned()).collect())
        };
        self.call("images.leftovers", look).boxed()
    }
}

fn whole(blob: Digest) -> Transfer {
    Transfer {
        blob: format!("sha256:{}", blob.short()),
        number: 1,
        of: 1,
        bytes: 1,
        size: 1,
        bytes_per_second: 0,
        left_ms: None,
    }
}

fn base(state: &State, image: Digest) -> Result<BaseImage, HostError> {
    let missing = || HostError::new(Code::NotFound, "open image", image.short());
    let ImageFile { uuid, size, .. } = state.world.images.get(&image).ok_or_else(missing)?;
    let path = format!("/sim/images/{image}").into();
    Ok(BaseImage { path, uuid: *uuid, size: *size, growable: true })
}

fn kernel_of(state: &State, kernel: Digest) -> Result<(), HostError> {
    if state.world.kernels.contains_key(&kernel) {
        return Ok(());
    }
    Err(HostError::new(Code::NotFound, "open kernel", kernel.short()))
}

fn must_be_fetched(state: &State, blob: Digest) -> Result<(), HostError> {
    if state.world.blobs.contains(&blob) {
        return Ok(());
    }
    Err(HostError::new(Code::NotFound, "open", blob.short()))
}

fn digest_of(recipe: &impl std::fmt::Debug) -> Digest {
    Digest(Sha256::digest(format!("{recipe:?}")).into())
}

/// An OCI layout is told by its mark, and says always the same.
fn said_by(recipe: &ImageRecipe) -> Option<ImageConfig> {
    let path = match recipe {
        ImageRecipe::Directory { path } => path,
        ImageRecipe::Root { config, .. } => return config.as_deref().cloned(),
        _ => return None,
    };
    path.join("oci-layout").exists().then(|| ImageConfig {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: vec![("FROM".to_owned(), "image".to_owned())],
        user: "app".to_owned(),
        workdir: "/srv".to_owned(),
        stop_signal: "SIGQUIT".to_owned(),
        ports: vec!["80/tcp".to_owned()],
        ..ImageConfig::default()
    })
}

/// A simulated kernel is the text of its configuration; of an empty file nothing is known.
fn features_of(paths: &[&PathBuf]) -> KernelFeatures {
    let texts = paths.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let config = KernelConfig::parse(&texts.collect::<String>());
    kernel_features(config.as_ref(), |_| ModuleSeen::Unknown)
}

fn refuse_cancelled(what: &'static str, cancel: &CancellationToken) -> Result<(), HostError> {
    if cancel.is_cancelled() {
        return Err(HostError::new(Code::Cancelled, what, "simulated"));
    }
    Ok(())
}

fn must_exist(what: &'static str, path: &std::path::Path) -> Result<(), HostError> {
    let object = path.display().to_string();
    path.metadata().map(drop).map_err(|error| HostError::io(what, object, error))
}
