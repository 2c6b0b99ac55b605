//! Files of images and kernels: content-addressed, made under a temporary name, renamed when
//! whole. Which names exist is the store's business; this port knows digests only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::PortFuture;
use crate::model::{
    DebianKernel, Digest, ImageConfig, ImageRef, KernelFeatures, KernelOffer, Name, OpId, Size,
    Transfer,
};

/// Where a root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRecipe {
    /// mmdebstrap; `include` lists extra packages.
    Debian {
        suite: String,
        include: Vec<String>,
        mirror: Option<String>,
    },
    /// A tar, plain or compressed: a root file system, an image of containers, or a bundle.
    Tar {
        path: PathBuf,
    },
    Directory {
        path: PathBuf,
    },
    Containerfile(Containerfile),
    /// What [`ImageHost::fetch_image`] brought.
    Fetched {
        image: ImageRef,
        root: Digest,
        manifest: Digest,
    },
    /// A bundle that [`ImageHost::fetch_file`] brought.
    Bundle {
        blob: Digest,
        source: String,
    },
    /// The root of a VM that does not run, made from `base`, to be run as `config` says.
    Root {
        vm: String,
        base: Digest,
        root: RootSource,
        config: Option<Box<ImageConfig>>,
    },
}

/// What buildah is asked to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerfile {
    pub context: PathBuf,
    /// Else the one that lies in the context.
    pub file: Option<PathBuf>,
    pub target: Option<String>,
    /// `NAME=VALUE`.
    pub arguments: Vec<String>,
}

/// What a VM's root disk is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// A clone of its image that the guest wrote to.
    Clone(PathBuf),
    /// What device-mapper keeps of the changes to its image.
    Changes(PathBuf),
    /// The disk that the guest lays over its image.
    Overlay(PathBuf),
}

/// Takes bytes as they come; false if nobody wants more of them.
pub type ByteSink = Box<dyn FnMut(Vec<u8>) -> bool + Send>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelRecipe {
    /// The package of a kernel, of Debian's form or RPM's, and those of its modules; or a bundle.
    Packages { paths: Vec<PathBuf> },
    /// A bundle that [`ImageHost::fetch_file`] brought.
    Bundle { blob: Digest, source: String },
    /// Of Debian's archive, as [`ImageHost::find_kernel`] found it.
    Debian { offer: KernelOffer },
    /// A kernel (bzImage or ELF) and, unless everything is built in, its modules directory
    /// (the one that holds `modules.dep`).
    Files { kernel: PathBuf, modules: Option<PathBuf> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    pub digest: Digest,
    pub uuid: [u8; 16],
    pub size: Size,
    pub source: String,
    /// How it is run, if it came with that.
    pub config: Option<ImageConfig>,
    /// The kernel that it wants, if it came with that.
    pub kernel: Option<Name>,
}

/// A file that a URL names and a digest decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    pub url: String,
    pub digest: Digest,
    /// If it is known before; else the server's word ends the reading.
    pub size: Option<u64>,
}

impl Download {
    /// As it is recorded: without what may be a secret.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or(&self.url)
    }
}

/// What is handed on, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// An image as an OCI layout in one archive, run as it says.
    Layout {
        image: Digest,
        config: ImageConfig,
    },
    /// An image as it is, packed.
    ImageBundle {
        image: Digest,
        config: Option<ImageConfig>,
        kernel: Option<Name>,
    },
    KernelBundle {
        kernel: Digest,
        features: KernelFeatures,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFile {
    pub digest: Digest,
    pub version: String,
    pub distro: String,
    pub arch: String,
    pub modules: u32,
    pub size: Size,
    pub source: String,
    pub features: KernelFeatures,
}

/// What is on the shelf of one image, in bytes of the host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageUsage {
    pub file: u64,
    /// What new work disks begin with.
    pub seeds: u64,
}

/// Something that came from a registry, and is kept for later pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedBlob {
    pub digest: Digest,
    pub bytes: u64,
    /// Else the next pull goes on with it.
    pub whole: bool,
    pub used_unix_ms: u64,
}

/// The same of one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelUsage {
    pub files: u64,
    /// What guests boot with it.
    pub initrds: u64,
}

/// An image's file, as disks are made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseImage {
    pub path: PathBuf,
    pub uuid: [u8; 16],
    pub size: Size,
    /// Whether a clone of it may be written to and grow: files of the first format have no journal.
    pub growable: bool,
}

/// What a VM boots from; all verified to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFiles {
    pub base: BaseImage,
    pub kernel: PathBuf,
    /// Modules and agent in one initramfs.
    pub initrd: PathBuf,
}

/// Told what a long piece of work is doing; must not block.
pub type ProgressSink = std::sync::Arc<dyn Fn(String) + Send + Sync>;

/// Told how far a blob is; must not block.
pub type TransferSink = std::sync::Arc<dyn Fn(Transfer) + Send + Sync>;

#[derive(Clone)]
pub struct PullSink {
    pub progress: ProgressSink,
    pub transfer: TransferSink,
}

impl std::fmt::Debug for PullSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullSink").finish_non_exhaustive()
    }
}

/// What came from a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Of the document that the reference stands for now.
    pub root: Digest,
    /// Of the one for this platform; none if the root was known, and nothing else came.
    pub manifest: Option<Digest>,
}

pub trait ImageHost: Send + Sync + std::fmt::Debug {
    /// Brings all blobs of an image here, each verified; what is here already is not asked for.
    /// Whole ones stay, whatever becomes of the rest, until room is made in a sweep; parts stay after
    /// a failure, are gone on with by the next one, and go with a cancel. A future that is dropped
    /// leaves what a failure leaves.
    fn fetch_image<'a>(
        &'a self,
        op: OpId,
        image: &'a ImageRef,
        known: Option<Digest>,
        sink: PullSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, Fetched>;

    /// Brings one file into the cache, where it is known by its digest; as [`Self::fetch_image`] in
    /// everything else.
    fn fetch_file<'a>(
        &'a self,
        op: OpId,
        download: &'a Download,
        sink: PullSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()>;

    /// Builds or imports the image; the same content gives the same digest and one file. Cancelled
    /// or failed it leaves nothing behind, whole or half.
    fn make_image<'a>(
        &'a self,
        op: OpId,
        recipe: &'a ImageRecipe,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ImageFile>;

    /// What the host's package sources have of it now. Asks them.
    fn find_kernel<'a>(
        &'a self,
        op: OpId,
        asked: &'a DebianKernel,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, KernelOffer>;

    fn make_kernel<'a>(
        &'a self,
        op: OpId,
        recipe: &'a KernelRecipe,
        progress: ProgressSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, KernelFile>;

    /// The image's file, which is there and is what its name says.
    fn base(&self, op: OpId, image: Digest) -> PortFuture<'_, BaseImage>;

    /// A file system of this size with what the image has in `/root`, which new work disks are copies
    /// of; none where there is nothing. Refused if it takes more.
    fn work_seed(&self, op: OpId, image: Digest, size: Size) -> PortFuture<'_, Option<PathBuf>>;

    /// The files to boot from; puts the initramfs together if it is not there yet. A missing or
    /// damaged file is named.
    fn boot_files(&self, op: OpId, image: Digest, kernel: Digest) -> PortFuture<'_, BootFiles>;

    /// An image or kernel in one archive, which is named `name` in it.
    fn export<'a>(
        &'a self,
        op: OpId,
        what: &'a Export,
        name: &'a Name,
        to: ByteSink,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, ()>;

    /// What images take of the host's disk.
    fn usage(&self, op: OpId) -> PortFuture<'_, BTreeMap<Digest, ImageUsage>>;

    /// What is kept of what came from registries, by their digests.
    fn blobs(&self, op: OpId) -> PortFuture<'_, Vec<CachedBlob>>;

    /// Keeps none of it. Not to be called while something is pulled.
    fn empty_cache(&self, op: OpId) -> PortFuture<'_, ()>;

    /// What kernels take of the host's disk.
    fn kernel_usage(&self, op: OpId) -> PortFuture<'_, BTreeMap<Digest, KernelUsage>>;

    /// What [`Self::sweep`] would remove. Changes nothing.
    fn leftovers<'a>(&'a self, op: OpId, known: &'a [Digest]) -> PortFuture<'a, Vec<PathBuf>>;

    /// Removes leftovers of work that a crash cut short: temporary files, and finished files that
    /// no record names. Answers how many. Called before any other work begins.
    fn sweep<'a>(&'a self, op: OpId, known: &'a [Digest]) -> PortFuture<'a, u32>;
}
