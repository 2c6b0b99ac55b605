//! A virtual machine monitor, whichever it is.

use std::fmt;
use std::path::PathBuf;

use super::{Jail, LogKind, PortFuture, VmPaths, VmmLimits};
use crate::model::{DeviceCounters, Mac, OpId, SavedBy, Size, TapName, VmId, VmmChoice, VmmKind};

/// Everything a VMM must know to boot a guest. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    pub vm: VmId,
    pub name: String,
    pub vcpu: u32,
    pub memory_mib: u32,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub disks: Vec<DiskAttachment>,
    pub tap: TapName,
    pub mac: Mac,
    /// A serial console is wanted also where there is none otherwise.
    pub console: bool,
    pub paths: VmPaths,
    /// Continues with the memory at [`VmPaths::saved`] instead of booting the kernel. Everything
    /// else must be as it was when that was saved.
    pub resume: bool,
    /// Other VMs read that memory too: it is nobody's own.
    pub memory_is_shared: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskAttachment {
    pub path: PathBuf,
    pub read_only: bool,
}

/// What the helper is asked to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Where what it prints belongs: a VMM may print what its guest says.
    pub prints: LogKind,
    pub limits: VmmLimits,
    /// None: it runs as the daemon's user, and sees what that sees.
    pub jail: Option<Jail>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmDescription {
    pub kind: VmmKind,
    pub version: String,
    /// `kvm`, `tcg`.
    pub accelerator: &'static str,
    /// Why this VMM and this accelerator: `the CPU shows neither svm nor vmx`.
    pub why: String,
    /// It serves, and yet somebody should look at it.
    pub warning: Option<String>,
}

impl VmmDescription {
    /// Whether this VMM can continue what that one saved.
    #[must_use]
    pub fn can_read(&self, saved: &SavedBy) -> bool {
        (self.kind, &self.version, self.accelerator)
            == (saved.kind, &saved.version, &*saved.accelerator)
    }
}

/// Begins with the kind: see [`VmmKind::described`].
impl fmt::Display for VmmDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, version, accelerator, why, .. } = self;
        write!(f, "{} {version} ({accelerator}: {why})", kind.as_str())
    }
}

pub trait Hypervisor: Send + Sync + std::fmt::Debug {
    /// Which VMM serves `choice` now, or a refusal by name. What it says of the kind is asked for
    /// once a start: the host may change its mind between two calls.
    fn describe(&self, choice: VmmChoice) -> PortFuture<'_, VmmDescription>;

    /// The command line. No effects.
    fn command<'a>(&'a self, kind: VmmKind, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand>;

    /// Waits until the API of the VMM that was spawned answers, tells it what to run if its
    /// command line did not, and ends when it says that the guest runs. A guest that runs already
    /// is left alone. One that is to resume is not let go on: it is paused when this ends.
    fn boot<'a>(&'a self, op: OpId, kind: VmmKind, plan: &'a BootPlan) -> PortFuture<'a, ()>;

    /// Presses the power button, the second way to ask a guest that does not listen. Which VMM
    /// has it is seen in the run directory, for a VM is stopped by whoever finds it running.
    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    /// Halts the guest's CPUs. Its memory, its process and its devices stay; whoever waits for an
    /// answer of the guest waits until [`Self::unpause`]. One that is paused already stays so.
    fn pause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    /// Lets a paused guest go on, its clock behind by as long as it stood. One that runs is left
    /// alone.
    fn unpause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    /// Whether the VMM has halted the guest by itself because its disk could not be written. A VMM that
    /// tells its guest of the error instead never does.
    fn halted_by_disk<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, bool>;

    /// What went through the devices of a guest that runs; none of a VMM that does not count it.
    fn counters<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
    ) -> PortFuture<'a, Option<DeviceCounters>>;
    /// Pauses the guest and writes its memory and its devices' state to [`VmPaths::saving`]; it
    /// stays paused, also when this fails or is dropped half way. Answers who can read it. What
    /// was written is not yet durable.
    fn save<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, SavedBy>;

    /// Memory that a VMM needs beside its guest's.
    fn overhead(&self) -> Size;
}
