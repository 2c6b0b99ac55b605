//! Ending a VM at once: the guest is not asked.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::step::no_undo;
use super::stop_vm::ended;
use super::teardown::{WithdrawName, end_steps};
use super::{Direction, Phase, Plan, Step, StepCx, StepError};

/// `signal` is sent first and given a moment; what is left then is killed.
#[must_use]
pub fn kill_vm(signal: Option<i32>) -> Plan {
    vec![Phase { direction: Direction::Forward, steps: kill_steps(signal) }]
}

/// Takes away what a VM that ended by itself, or got stuck, left behind.
#[must_use]
pub fn clean_up_vm() -> Plan {
    kill_vm(None)
}

pub(super) fn kill_steps(signal: Option<i32>) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> =
        vec![Box::new(WithdrawName), Box::new(SignalVmm { signal })];
    steps.extend(end_steps());
    steps
}

const SIGKILL: i32 = 9;
/// How long a process that got a milder signal may take to end.
const WAIT: Duration = Duration::from_secs(2);

/// In every such plan, with or without a signal, because recovery does not know which it was.
#[derive(Debug)]
struct SignalVmm {
    signal: Option<i32>,
}

impl Step for SignalVmm {
    fn name(&self) -> &'static str {
        "signal-vmm"
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            // SIGKILL is what the next step does anyway, and to the whole cgroup.
            let Some(signal) = self.signal.filter(|signal| *signal != SIGKILL) else {
                return Ok(String::new());
            };
            let Some(process) = cx.ports.process.find(cx.op, cx.vm.id).await? else {
                return Ok("not running".to_owned());
            };
            cx.ports.process.signal(cx.op, cx.vm.id, &process, signal).await?;
            let end = match ended(cx, &process, Instant::now() + WAIT).await {
                Ok(()) => "ended",
                Err(()) => "still there",
            };
            Ok(format!("signal {signal}: {end}"))
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("a signal cannot be taken back")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, VmRecord};
    use crate::ops::harness::{Case, crashed, running, survives};

    fn plain(_: &VmRecord) -> Plan {
        kill_vm(None)
    }

    fn with_signal(_: &VmRecord) -> Plan {
        kill_vm(Some(15))
    }

    fn clean_up(_: &VmRecord) -> Plan {
        clean_up_vm()
    }

    survives!(kill, Case::new(OpKind::KillVm, plain, running().await));
    survives!(terminate, Case::new(OpKind::KillVm, with_signal, running().await));
    survives!(clean_up_after_a_crash, Case::new(OpKind::CleanUpVm, clean_up, crashed().await));
}
