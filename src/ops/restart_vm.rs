//! Restarting a VM: a stop, then a start. A start that fails leaves it stopped.

use std::time::Duration;

use super::stop_vm::stop_steps;
use super::{Direction, Phase, Plan, start_vm};
use crate::model::VmRecord;

#[must_use]
pub fn restart_vm(vm: &VmRecord, grace: Option<Duration>) -> Plan {
    let mut plan = vec![Phase { direction: Direction::Forward, steps: stop_steps(grace) }];
    plan.extend(start_vm(vm));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpKind;
    use crate::ops::harness::{Case, created, running, survives};

    fn plan(vm: &VmRecord) -> Plan {
        restart_vm(vm, None)
    }

    survives!(restart, Case::new(OpKind::RestartVm, plan, running().await));
    survives!(restart_what_is_stopped, Case::new(OpKind::RestartVm, plan, created().await));
}
