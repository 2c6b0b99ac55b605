//! Taking away one thing that a VM does not hold and that is there, or that is gone and still has a row.
//! The VM's actor has looked whether it may.

use super::teardown::{DropDevice, KillVmm, ReleaseTap, RemoveConfig, RemoveNat, RemoveRunDir};
use super::{Direction, Phase, Plan, Step};
use crate::model::{Entry, ResourceKind};

/// Nothing for what holds data.
#[must_use]
pub fn collect_vm(kind: ResourceKind) -> Plan {
    use ResourceKind as K;
    let step: Option<Box<dyn Step>> = match kind {
        K::Process | K::Cgroup | K::Jail => Some(Box::new(KillVmm)),
        K::Device => Some(Box::new(DropDevice)),
        K::Nat => Some(Box::new(RemoveNat)),
        K::Tap => Some(Box::new(ReleaseTap)),
        K::RunDir => Some(Box::new(RemoveRunDir)),
        K::Config => Some(Box::new(RemoveConfig)),
        K::VmDir | K::Memory | K::Loop | K::Leftover => None,
    };
    vec![Phase { direction: Direction::Forward, steps: step.into_iter().collect() }]
}

/// What it was, by its journal. Of one that did not get to its first step nobody knows, and nothing was
/// done: it ends as one that was not begun.
pub(super) fn collect_again(history: &[Entry]) -> Plan {
    let begun = |plan: &Plan| {
        plan[0].steps.iter().any(|step| history.iter().any(|entry| entry.step == step.name()))
    };
    let plans = ResourceKind::ALL.into_iter().map(collect_vm);
    plans.into_iter().find(begun).unwrap_or_else(|| {
        vec![Phase { direction: Direction::Back, steps: vec![Box::new(RemoveNat)] }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, VmRecord};
    use crate::ops::harness::{Case, created, record, survives};
    use crate::sim::World;

    /// A VM that is off, and a rule that it does not hold.
    async fn leaky() -> World {
        let (mut world, vm) = (created().await, record());
        world.nat.insert(vm.id, vm.address);
        world
    }

    fn nat(_: &VmRecord) -> Plan {
        collect_vm(ResourceKind::Nat)
    }

    survives!(collect, Case::new(OpKind::CollectVm, nat, leaky().await));
}
