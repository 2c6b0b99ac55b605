//! Changing a VM that there is. What it is to be is in its record, written with the intent; here its
//! disks follow.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::create_vm::disk_plan;
use super::step::no_undo;
use super::{Direction, Phase, Plan, Step, StepCx, StepError};

/// Forward only: the record says already how large they are.
#[must_use]
pub fn set_vm() -> Plan {
    vec![Phase { direction: Direction::Forward, steps: vec![Box::new(GrowDisks)] }]
}

#[derive(Debug)]
struct GrowDisks;

impl Step for GrowDisks {
    fn name(&self) -> &'static str {
        "grow-disks"
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let plan = disk_plan(&cx.vm);
            let base = cx.ports.images.base(cx.op, cx.vm.image).await?;
            cx.ports.disk.grow(cx.op, cx.vm.id, &plan, &base).await?;
            Ok(format!("{}, work {}", cx.vm.spec.disk, cx.vm.spec.work_disk))
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("a disk may hold what it could not hold before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, VmRecord};
    use crate::ops::harness::{Case, created, running, survives};

    fn plan(_: &VmRecord) -> Plan {
        set_vm()
    }

    survives!(set_what_is_stopped, Case::new(OpKind::SetVm, plan, created().await));
    survives!(set_what_runs, Case::new(OpKind::SetVm, plan, running().await));
}
