//! A virtual machine monitor, whichever it is.

use std::path::PathBuf;

use super::{PortFuture, VmPaths};
use crate::model::{Mac, OpId, Size, TapName, VmId, VmmChoice};

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
    pub paths: VmPaths,
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmDescription {
    /// `qemu`, `firecracker`.
    pub kind: &'static str,
    pub version: String,
    /// `kvm`, `tcg`.
    pub accelerator: &'static str,
    /// Why this VMM and this accelerator: `the CPU shows neither svm nor vmx`.
    pub why: String,
}

pub trait Hypervisor: Send + Sync + std::fmt::Debug {
    /// Which VMM serves `choice`, or a refusal by name.
    fn describe(&self, choice: VmmChoice) -> PortFuture<'_, VmmDescription>;

    /// The command line. No effects.
    fn command<'a>(&'a self, choice: VmmChoice, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand>;

    /// Ends when the VMM's API answers and says that the guest runs.
    fn await_running<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    /// Presses the power button, the second way to ask a guest that does not listen.
    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    /// Memory that a VMM needs beside its guest's.
    fn overhead(&self) -> Size;
}
