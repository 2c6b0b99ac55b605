//! Seams to the operating system. The real adapter (`host/`) and the fake (`sim/`) implement the
//! same trait, and the fake validates as strictly.
//!
//! Every effect is an idempotent `ensure_*` or `remove_*`: done twice, it is done once; removing
//! what is not there succeeds. Each carries the operation's id, which ends in every log line.

mod clock;
mod disk;
mod error;
mod guest;
mod hypervisor;
mod image;
mod jail;
mod names;
mod net;
mod process;
mod set;
mod warm;

pub use clock::Clock;
pub use disk::{CheckedDisk, DiskHost, DiskPlan, LogKind, RootPlan, SavedPaths, VmPaths};
pub use error::HostError;
pub use guest::{GuestCheck, GuestLink, GuestReady, GuestSetup};
pub use hypervisor::{BootPlan, DiskAttachment, Hypervisor, VmmCommand, VmmDescription};
pub use image::{
    BaseImage, BootFiles, ByteSink, CachedBlob, Containerfile, Download, Export, Fetched,
    ImageFile, ImageHost, ImageRecipe, ImageUsage, KernelFile, KernelRecipe, KernelUsage,
    ProgressSink, PullSink, RootSource, TransferSink,
};
pub use jail::{Jail, JailAccess, JailFile, VmmLimits};
pub use names::{NameHost, NameSink};
pub use net::{NetHost, TapSource};
pub use process::{ProcessHost, SpawnRequest};
pub use set::Ports;
pub use warm::{Claim, Draft, Found, Likeness, Snapshot, WarmHost};

/// The future that a port's method returns.
pub type PortFuture<'a, T> = futures::future::BoxFuture<'a, Result<T, HostError>>;
