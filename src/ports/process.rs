//! Processes that outlive the daemon.

use std::path::PathBuf;

use super::{HostError, PortFuture, VmmCommand};
use crate::model::{ExitReport, HostSeen, OpId, ProcessIdentity, ProcessUsage, VmId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnRequest {
    pub vm: VmId,
    pub command: VmmCommand,
    /// Takes the process's stdout and stderr.
    pub log: PathBuf,
}

/// A VMM runs in its own session and cgroup under the helper's care; the VM's id is in its cgroup
/// and on its command line, so it is found again when every handle is lost.
pub trait ProcessHost: Send + Sync + std::fmt::Debug {
    /// Which boot of the host this is. Processes, links, rules and devices are of one boot and go
    /// with it. Needs no privilege.
    fn host_boot_id(&self) -> Result<String, HostError>;

    /// Starts the VMM, or answers with the one that runs already.
    fn ensure_spawned<'a>(
        &'a self,
        op: OpId,
        request: &'a SpawnRequest,
    ) -> PortFuture<'a, ProcessIdentity>;

    /// The VM's process, whoever started it.
    fn find(&self, op: OpId, vm: VmId) -> PortFuture<'_, Option<ProcessIdentity>>;

    /// Needs no privilege and asks nobody but the kernel.
    fn is_alive(&self, process: &ProcessIdentity) -> bool;

    /// Whether somebody stopped it, by a signal or to debug it. As [`Self::is_alive`].
    fn is_stopped(&self, process: &ProcessIdentity) -> bool;

    /// The processes, cgroups and jails of VMs that there are, known or not.
    fn survey(&self, op: OpId) -> PortFuture<'_, HostSeen>;

    /// Signals this process and no other: a reused pid is never hit. Gone already is success.
    fn signal<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        process: &'a ProcessIdentity,
        signal: i32,
    ) -> PortFuture<'a, ()>;

    /// Ends everything in the VM's cgroup by SIGKILL, waits until it is gone, removes the cgroup.
    fn ensure_gone(&self, op: OpId, vm: VmId) -> PortFuture<'_, Option<ExitReport>>;

    /// What the VM's process takes now; none when it has ended. Needs no privilege.
    fn usage<'a>(
        &'a self,
        vm: VmId,
        process: &'a ProcessIdentity,
    ) -> PortFuture<'a, Option<ProcessUsage>>;

    /// Ends when the process has ended. Dropping the future stops the watch only.
    fn exited<'a>(&'a self, vm: VmId, process: &'a ProcessIdentity) -> PortFuture<'a, ExitReport>;
}
