//! Out of an error: what is left of a VM's runs goes, whatever went wrong in them, and its disks are looked
//! at. They stay as they are, but for what a check puts right without loss; what is beyond that is told,
//! and left to a start with repair.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::MARGIN;
use super::check_disks::CHECK_LIMIT;
use super::create_vm::disk_plan;
use super::kill_vm::kill_steps;
use super::start_vm::open_root;
use super::step::no_undo;
use super::{Direction, Phase, Plan, Settings, Step, StepCx, StepError};
use crate::model::{Code, DiskBackend, EventKind, ResourceKind, VmRecord, chain};

/// Two phases, so that the second is in the ledger before it opens a device.
#[must_use]
pub fn recover_vm(_vm: &VmRecord) -> Plan {
    let look: Vec<Box<dyn Step>> = vec![Box::new(LookAtDisks)];
    vec![
        Phase { direction: Direction::Forward, steps: kill_steps(None) },
        Phase { direction: Direction::Forward, steps: look },
    ]
}

#[derive(Debug)]
struct LookAtDisks;

impl LookAtDisks {
    async fn look(cx: &StepCx) -> Result<String, StepError> {
        let (vm, plan) = (cx.vm.id, disk_plan(&cx.vm));
        let root = match cx.vm.spec.root.backend {
            DiskBackend::DmSnapshot => Some(open_root(cx).await?),
            DiskBackend::Reflink | DiskBackend::Overlay => None,
        };
        let checked = cx.ports.disk.check_disks(cx.op, vm, &plan, root.as_deref(), false).await?;
        Ok(if checked.is_empty() { "clean" } else { "sound" }.to_owned())
    }
}

impl Step for LookAtDisks {
    fn name(&self) -> &'static str {
        "look-at-disks"
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        CHECK_LIMIT + MARGIN
    }

    fn makes(&self, cx: &StepCx) -> Vec<ResourceKind> {
        let opens = cx.vm.spec.root.backend == DiskBackend::DmSnapshot;
        opens.then_some(ResourceKind::Device).into_iter().collect()
    }

    fn frees(&self) -> &'static [ResourceKind] {
        &[ResourceKind::Device]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let looked = Self::look(cx).await;
            if cx.vm.spec.root.backend == DiskBackend::DmSnapshot {
                cx.ports.disk.close_root(cx.op, cx.vm.id).await?;
            }
            match looked {
                // A VM whose disks are damaged or gone is better stopped and told than in error.
                Err(StepError::Host(error))
                    if matches!(error.code, Code::Corrupt | Code::NotFound) =>
                {
                    let (name, why) = (&cx.vm.spec.name, chain(&error));
                    let text = format!(
                        "the disks of {name} are not sound: {why}; `banger vm start --repair {name}` \
                         puts right what can be"
                    );
                    (cx.watcher)(EventKind::Note { text });
                    Ok(format!("not sound: {why}"))
                }
                looked => looked,
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("what is sound stays sound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpKind;
    use crate::ops::harness::{Case, crashed, created, record, running, survives};
    use crate::sim::World;

    async fn damaged() -> World {
        let mut world = created().await;
        world.damaged.insert(record().id);
        world
    }

    survives!(recover_what_runs, Case::new(OpKind::RecoverVm, recover_vm, running().await));
    survives!(recover_a_crash, Case::new(OpKind::RecoverVm, recover_vm, crashed().await));
    survives!(recover_the_damaged, Case::new(OpKind::RecoverVm, recover_vm, damaged().await));
}
