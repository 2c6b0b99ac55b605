//! Creating a VM. Its name, address and record are reserved by the store before the plan runs.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::start_vm::first_start;
use super::{Direction, Phase, Plan, Step, StepCx, StepError, warm};
use crate::model::{Outcome, ResourceKind, VmRecord};
use crate::ports::DiskPlan;

/// The VM exists when its disks do.
#[must_use]
pub fn create_vm(_vm: &VmRecord) -> Plan {
    vec![Phase { direction: Direction::Back, steps: vec![Box::new(EnsureDisks { warm: false })] }]
}

/// A start that fails leaves a VM that was created and is stopped.
#[must_use]
pub fn create_and_start(vm: &VmRecord) -> Plan {
    let disks = Box::new(EnsureDisks { warm: vm.spec.warm });
    let mut plan = vec![Phase { direction: Direction::Back, steps: vec![disks] }];
    plan.extend(first_start(vm, vm.spec.warm));
    plan
}

/// Whether there is a VM after a create that ended like this; otherwise its record goes too.
#[must_use]
pub fn keeps_vm(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::RolledBack { step, .. } if step == ENSURE_DISKS)
}

pub(super) fn disk_plan(vm: &VmRecord) -> DiskPlan {
    DiskPlan::for_vm(vm.id, &vm.spec)
}

pub(super) async fn fresh_disks(cx: &StepCx) -> Result<String, StepError> {
    let plan = disk_plan(&cx.vm);
    let base = cx.ports.images.base(cx.op, cx.vm.image).await?;
    let seed = cx.ports.images.work_seed(cx.op, cx.vm.image, plan.work).await?;
    cx.ports.disk.ensure_vm_disks(cx.op, cx.vm.id, &plan, &base, seed.as_deref()).await?;
    let spec = &cx.vm.spec;
    Ok(format!("{} {}, work {}", spec.root.backend, spec.disk, plan.work))
}

const ENSURE_DISKS: &str = "ensure-disks";

#[derive(Debug)]
struct EnsureDisks {
    /// The VM is started at once, and may go on from a snapshot.
    warm: bool,
}

impl Step for EnsureDisks {
    fn name(&self) -> &'static str {
        ENSURE_DISKS
    }

    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![ResourceKind::VmDir]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            match self.warm {
                true => warm::disks(cx).await,
                false => fresh_disks(cx).await,
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.disk.remove_vm(cx.op, cx.vm.id).await?) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpKind;
    use crate::ops::harness::{Case, bare, survives};

    survives!(create, Case::new(OpKind::CreateVm, create_vm, bare()));
    survives!(create_and_boot, Case::new(OpKind::CreateVm, create_and_start, bare()));
    survives!(
        create_and_boot_slowly,
        Case::new(OpKind::CreateVm, create_and_start, bare()).slow_boot()
    );

    #[test]
    fn a_vm_without_disks_is_not_kept() {
        let at = |step: &str| Outcome::RolledBack { step: step.to_owned(), cause: String::new() };
        assert!(!keeps_vm(&at("ensure-disks")));
        assert!(keeps_vm(&at("resolve-boot")));
        assert!(keeps_vm(&Outcome::Done));
    }
}
