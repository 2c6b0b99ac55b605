//! Operations: plans of steps, and the runner that carries them out or takes them back.
//!
//! An operation is one file with one list that reads from top to bottom. It reaches the host only
//! through ports and another actor only through a port that the actor's handle implements. It
//! never decides whether it may run, never reads or writes a VM's record: the VM's actor does.

mod await_guest;
mod check_disks;
mod collect_vm;
mod create_vm;
mod delete_vm;
mod furnish;
mod journal;
mod kill_vm;
mod observed;
mod plan;
mod recover;
mod recover_vm;
mod restart_vm;
mod resume_vm;
mod runner;
mod set_vm;
mod start_vm;
mod step;
mod stop_vm;
mod suspend_vm;
mod teardown;
mod warm;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod runner_tests;

pub use collect_vm::collect_vm;
pub use create_vm::{create_and_start, create_vm, keeps_vm};
pub use delete_vm::delete_vm;
pub use journal::{Journal, JournalLost, StoreJournal};
pub use kill_vm::{clean_up_vm, kill_vm};
pub use observed::Observed;
pub use plan::{Direction, Phase, Plan, plan_for_recovery};
pub use recover::recover;
pub use recover_vm::recover_vm;
pub use restart_vm::restart_vm;
pub use resume_vm::resume_vm;
pub use runner::{Finished, RunError, run};
pub use set_vm::set_vm;
pub use start_vm::{start_after_clean_up, start_vm, start_with_repair};
pub use step::{Settings, Step, StepCx, StepError, Watcher};
pub use stop_vm::stop_vm;
pub use suspend_vm::suspend_vm;
