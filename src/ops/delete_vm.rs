//! Deleting a VM for good: its run ends without asking the guest, then its disks go. Whoever
//! wants the guest asked stops it first.

use super::kill_vm::kill_steps;
use super::teardown::RemoveDisks;
use super::{Direction, Phase, Plan};

#[must_use]
pub fn delete_vm() -> Plan {
    let mut steps = kill_steps(None);
    steps.push(Box::new(RemoveDisks));
    vec![Phase { direction: Direction::Forward, steps }]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{OpKind, VmRecord};
    use crate::ops::harness::{Case, MemJournal, bare, created, rig, running, survives};
    use crate::ops::run;

    fn plan(_: &VmRecord) -> Plan {
        delete_vm()
    }

    survives!(delete, Case::new(OpKind::DeleteVm, plan, running().await));
    survives!(delete_what_is_stopped, Case::new(OpKind::DeleteVm, plan, created().await));

    #[tokio::test]
    async fn nothing_is_left() {
        let (cx, host) = rig(running().await, Duration::ZERO);
        run(&delete_vm(), &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(host.world(), bare());
    }
}
