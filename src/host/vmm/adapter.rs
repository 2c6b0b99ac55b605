//! What one VMM must bring. [`super::Vmms`] chooses among the adapters; nothing else knows them.

use std::fmt::Debug;

use crate::model::{DeviceCounters, OpId, SavedBy, Size};
use crate::ports::{BootPlan, PortFuture, VmPaths, VmmCommand, VmmDescription, VmmLimits};

/// Between what admission counts for a VMM and the wall of its cgroup: the disks' pages, which the
/// host takes back, and what nobody foresaw.
const HEADROOM_MIB: u32 = 128;

/// `own` is what the VMM needs beside its guest, in memory and in threads besides those of vCPUs.
pub(super) fn limits(plan: &BootPlan, own: Size, threads: u32) -> VmmLimits {
    let parts = [Size::from_mib(plan.memory_mib), own, Size::from_mib(HEADROOM_MIB)];
    VmmLimits {
        memory: Size::from_bytes(parts.iter().map(|part| part.bytes()).sum()),
        // One more than the guest has, for what the VMM does beside it.
        cpus: plan.vcpu.saturating_add(1),
        tasks: plan.vcpu.saturating_add(threads),
    }
}

pub(crate) trait Adapter: Debug + Send + Sync {
    fn describe(&self) -> PortFuture<'_, VmmDescription>;

    fn command<'a>(&'a self, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand>;

    fn boot<'a>(&'a self, op: OpId, plan: &'a BootPlan) -> PortFuture<'a, ()>;

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    fn pause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    fn unpause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    /// As [`crate::ports::Hypervisor::halted_by_disk`].
    fn halted_by_disk<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, bool> {
        let _ = (op, paths);
        Box::pin(async { Ok(false) })
    }

    /// As [`crate::ports::Hypervisor::counters`]; most VMMs count nothing.
    fn counters<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
    ) -> PortFuture<'a, Option<DeviceCounters>> {
        let _ = (op, paths);
        Box::pin(async { Ok(None) })
    }
    fn save<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, SavedBy>;

    fn overhead(&self) -> Size;
}
