//! Stopping a VM: the guest is asked, then its power button is pressed, then it is killed. Ends
//! within the grace and a few seconds, whatever hangs.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::step::no_undo;
use super::teardown::{WithdrawName, end_steps};
use super::{Direction, Phase, Plan, Settings, Step, StepCx, StepError};
use crate::model::{DiskBackend, EventKind, ProcessIdentity, chain};

/// `grace`: another one than the configured. A guest that does not end when asked is told to the watcher
/// with how it ended then, and why.
#[must_use]
pub fn stop_vm(grace: Option<Duration>) -> Plan {
    vec![Phase { direction: Direction::Forward, steps: stop_steps(grace) }]
}

pub(super) fn stop_steps(grace: Option<Duration>) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> =
        vec![Box::new(WithdrawName), Box::new(ShutdownGuest { grace })];
    steps.extend(end_steps());
    steps
}

/// Never fails: whatever goes wrong here, the next step ends the process by force.
#[derive(Debug)]
struct ShutdownGuest {
    grace: Option<Duration>,
}

/// What asking for the process, or pressing the button, may take.
const ASK_LIMIT: Duration = Duration::from_secs(2);

impl ShutdownGuest {
    fn grace(&self, settings: &Settings) -> Duration {
        self.grace.unwrap_or(settings.grace)
    }

    /// The error is why it takes force.
    async fn shut_down(&self, cx: &StepCx) -> Result<End, String> {
        let find = cx.ports.process.find(cx.op, cx.vm.id);
        let found = tokio::time::timeout(ASK_LIMIT, find).await;
        let found = found.map_err(|_| "looking for the VMM took too long")?;
        let Some(process) = found.map_err(|error| chain(&error))? else {
            return Ok(End::NotRunning);
        };
        if cx.vm.spec.root.backend == DiskBackend::DmSnapshot {
            // It may stand still because its disk is nearly full, and then it hears nothing.
            let paths = cx.ports.disk.paths(cx.vm.id);
            let resumed = cx.ports.hypervisor.unpause(cx.op, &paths);
            drop(tokio::time::timeout(ASK_LIMIT, resumed).await);
        }
        let deadline = Instant::now() + self.grace(&cx.settings);
        let refused = match ask(cx, &process, deadline).await {
            Ok(()) => return Ok(End::Graceful),
            Err(why) => why,
        };
        match press(cx, &process).await {
            Ok(()) => {
                Ok(End::Unasked(format!("ended when its power button was pressed: {refused}")))
            }
            Err(why) => Err(format!("{refused}; {why}")),
        }
    }
}

enum End {
    NotRunning,
    Graceful,
    /// Not as it should; users are told, for what the guest had not written yet may be lost.
    Unasked(String),
}

/// Asks the agent and waits until the process has ended, up to the deadline.
async fn ask(cx: &StepCx, process: &ProcessIdentity, deadline: Instant) -> Result<(), String> {
    let paths = cx.ports.disk.paths(cx.vm.id);
    let grace = deadline.saturating_duration_since(Instant::now());
    let asked = cx.ports.guest.shutdown(cx.op, &paths, grace);
    let answered = tokio::time::timeout_at(deadline, asked).await;
    answered.map_err(|_| "the agent did not answer")?.map_err(|error| chain(&error))?;
    ended(cx, process, deadline).await.map_err(|()| "the guest did not end in time".to_owned())
}

async fn press(cx: &StepCx, process: &ProcessIdentity) -> Result<(), String> {
    let paths = cx.ports.disk.paths(cx.vm.id);
    let pressed = cx.ports.hypervisor.power_button(cx.op, &paths);
    let pressed = tokio::time::timeout(ASK_LIMIT, pressed).await;
    pressed.map_err(|_| "the VMM did not answer")?.map_err(|error| chain(&error))?;
    let deadline = Instant::now() + cx.settings.power_wait;
    ended(cx, process, deadline).await.map_err(|()| "the power button did nothing".to_owned())
}

/// Whether the process ends before the deadline. Shared with `kill_vm`.
pub(super) async fn ended(
    cx: &StepCx,
    process: &ProcessIdentity,
    deadline: Instant,
) -> Result<(), ()> {
    let exited = cx.ports.process.exited(cx.vm.id, process);
    match tokio::time::timeout_at(deadline, exited).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

impl Step for ShutdownGuest {
    fn name(&self) -> &'static str {
        "shutdown-guest"
    }

    fn limit(&self, settings: &Settings) -> Duration {
        self.grace(settings) + settings.power_wait + 3 * ASK_LIMIT + Duration::from_secs(1)
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let end = self.shut_down(cx).await;
            let end = end.unwrap_or_else(|why| End::Unasked(format!("ended by force: {why}")));
            Ok(match end {
                End::NotRunning => "not running".to_owned(),
                End::Graceful => "graceful".to_owned(),
                End::Unasked(how) => {
                    (cx.watcher)(EventKind::Note { text: how.clone() });
                    how
                }
            })
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("a guest that was told to shut down cannot be told not to")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, VmRecord};
    use crate::ops::harness::{Case, crashed, created, running, survives};

    fn plan(_: &VmRecord) -> Plan {
        stop_vm(None)
    }

    survives!(stop, Case::new(OpKind::StopVm, plan, running().await));
    survives!(stop_what_is_stopped, Case::new(OpKind::StopVm, plan, created().await));
    survives!(stop_what_crashed, Case::new(OpKind::StopVm, plan, crashed().await));
}
