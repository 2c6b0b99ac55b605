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
