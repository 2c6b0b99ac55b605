//! What one VMM must bring. [`super::Vmms`] chooses among the adapters; nothing else knows them.

use std::fmt::Debug;

use crate::model::{DeviceCounters, OpId, SavedBy, Size};
use crate::ports::{BootPlan, PortFuture, VmPaths, VmmCommand, VmmDescription};

pub(crate) trait Adapter: Debug + Send + Sync {
    fn describe(&self) -> PortFuture<'_, VmmDescription>;

    fn command<'a>(&'a self, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand>;

    fn boot<'a>(&'a self, op: OpId, plan: &'a BootPlan) -> PortFuture<'a, ()>;

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    fn pause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

    fn unpause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()>;

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
