//! The memory of guests that have booted and are nobody yet, for others to go on from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::PortFuture;
use crate::model::{Digest, DiskBackend, OpId, Size};

/// What two machines must have in common for one to go on from the other's memory, as far as it is
/// not the host itself, which adds what it is. Whose the machines are is no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likeness {
    pub image: Digest,
    pub kernel: Digest,
    /// Which of the image's programs is its init.
    pub init: String,
    /// Named after its content, of which the agent is a part.
    pub initrd: PathBuf,
    pub vcpu: u32,
    pub memory_mib: u32,
    pub root: DiskBackend,
    pub console: bool,
    pub disk: Size,
    pub work_disk: Size,
    /// Kind, exact version and accelerator.
    pub vmm: String,
}

/// A directory with all that a machine of that likeness goes on from. Its files never change, for
/// machines that went on from them still read them; that it is removed does them no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub dir: PathBuf,
}

/// Whoever holds it is the only one to make a snapshot of that likeness.
pub type Claim = Arc<()>;

#[derive(Clone, Debug)]
pub enum Found {
    Snapshot(Snapshot),
    /// There is none, and nobody else makes one.
    Missing(Claim),
    BeingMade,
}

/// A snapshot in the making; what it holds goes when it is dropped.
pub trait Draft: std::fmt::Debug + Send + Sync {
    fn snapshot(&self) -> &Snapshot;
}

/// A cache: it is lost with a restart of the host, and whoever finds nothing in it boots.
pub trait WarmHost: Send + Sync + std::fmt::Debug {
    /// One that is not whole is removed, and counts as missing.
    fn find<'a>(&'a self, op: OpId, like: &'a Likeness) -> PortFuture<'a, Found>;

    /// An empty directory to save in, with room for so much: refused if the disk lacks it.
    fn draft<'a>(
        &'a self,
        op: OpId,
        like: &'a Likeness,
        room: Size,
    ) -> PortFuture<'a, Box<dyn Draft>>;

    /// What was saved is whole and can be found from now on. Of many, those that were not used for
    /// the longest go.
    fn keep<'a>(
        &'a self,
        op: OpId,
        like: &'a Likeness,
        draft: Box<dyn Draft>,
    ) -> PortFuture<'a, ()>;

    /// For one that nothing could go on from.
    fn remove<'a>(&'a self, op: OpId, snapshot: &'a Snapshot) -> PortFuture<'a, ()>;

    /// Of each image, how many there are and what they take of the host's disk.
    fn usage(&self, op: OpId) -> PortFuture<'_, BTreeMap<Digest, (u32, u64)>>;

    /// What [`Self::sweep`] would remove. Changes nothing.
    fn leftovers<'a>(&'a self, op: OpId, known: &'a [Digest]) -> PortFuture<'a, Vec<PathBuf>>;

    /// Removes what is of no use any more: of images and kernels other than these, of an earlier
    /// boot of the host, half made. Answers how many.
    fn sweep<'a>(&'a self, op: OpId, known: &'a [Digest]) -> PortFuture<'a, u32>;
}
