//! Waiting for a guest: for its VMM, then for its agent. A VMM that dies ends the wait at once,
//! and whatever ends it badly brings the console's last lines along.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::start_vm::boot_plan;
use super::step::no_undo;
use super::warm::Origin;
use super::{Settings, Step, StepCx, StepError};
use crate::model::{Code, chain};
use crate::ports::{HostError, LogKind};

/// How long a process may take to end after its connections did.
const LAST_BREATH: Duration = Duration::from_millis(200);
/// What fetching the console's lines may cost a failure.
const CONSOLE_LIMIT: Duration = Duration::from_secs(2);
/// So that the step's own limit, which has a better story, comes before the runner's.
pub(super) const MARGIN: Duration = Duration::from_secs(5);
/// For a guest's memory to be written or read: 32 GiB by a disk that manages 60 MiB/s.
pub(super) const MEMORY_LIMIT: Duration = Duration::from_secs(600);
const WHY_NO_UNDO: &str = "it waits; the VMM is taken back by the step that started it";

/// A VMM that its command line did not tell what to run is told here. That leaves nothing but
/// what is in the process itself, which the step before has in the journal.
#[derive(Debug)]
pub(super) struct AwaitRunning;

impl Step for AwaitRunning {
    fn name(&self) -> &'static str {
        "await-running"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn limit(&self, settings: &Settings) -> Duration {
        settings.step_limit + MARGIN
    }

    fn interruptible(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            if let Some(Origin::WentOn) = cx.observed.origin() {
                return Ok("the guest has gone on".to_owned());
            }
            let (kind, plan) = (cx.observed.vmm()?, boot_plan(cx)?);
            let running = cx.ports.hypervisor.boot(cx.op, kind, &plan);
            let limit = cx.settings.step_limit;
            let answer = while_alive(cx, "start the VMM of", limit, Code::Deadline, running).await;
            match answer {
                Ok(()) => Ok("the guest runs".to_owned()),
                Err(error) => Err(with_story(cx, error).await.into()),
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo(WHY_NO_UNDO)
    }
}

#[derive(Debug)]
pub(super) struct AwaitReady;

impl Step for AwaitReady {
    fn name(&self) -> &'static str {
        "await-ready"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn limit(&self, settings: &Settings) -> Duration {
        settings.boot_limit + MARGIN
    }

    fn interruptible(&self) -> bool {
        true
    }

    /// The output is the guest's boot id.
    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            if let (Some(Origin::WentOn), Some(id)) =
                (cx.observed.origin(), cx.observed.handles().guest_boot_id)
            {
                return Ok(id); // it told when it was adopted
            }
            let paths = cx.ports.disk.paths(cx.vm.id);
            let ready = cx.ports.guest.await_ready(cx.op, &paths, &cx.cancel);
            let limit = cx.settings.boot_limit;
            match while_alive(cx, "boot guest", limit, Code::GuestUnreachable, ready).await {
                Ok(ready) => Ok(ready.boot_id),
                Err(_) if cx.cancel.is_cancelled() => Err(StepError::Cancelled),
                Err(error) => Err(with_story(cx, error).await.into()),
            }
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        cx.observed.set_guest_boot_id(output.to_owned());
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo(WHY_NO_UNDO)
    }
}

/// The VMM reads the guest's memory, and the guest does not run yet.
#[derive(Debug)]
pub(super) struct LoadMemory;

impl Step for LoadMemory {
    fn name(&self) -> &'static str {
        "load-memory"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        MEMORY_LIMIT + MARGIN
    }

    fn interruptible(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let (kind, plan) = (cx.observed.vmm()?, boot_plan(cx)?);
            let loading = cx.ports.hypervisor.boot(cx.op, kind, &plan);
            let what = "load the memory of";
            match while_alive(cx, what, MEMORY_LIMIT, Code::Deadline, loading).await {
                Ok(()) => Ok("the guest stands where it stood".to_owned()),
                Err(error) => {
                    let tail = cx.ports.disk.read_log(cx.vm.id, LogKind::Vmm, 0);
                    let said = tokio::time::timeout(CONSOLE_LIMIT, tail).await;
                    let said = said.ok().and_then(Result::ok).unwrap_or_default().0;
                    let lines = last_lines(&said, cx.settings.console_lines);
                    Err(error.with_detail(lines).hint(or_boot(cx)).into())
                }
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo(WHY_NO_UNDO)
    }
}

/// What a VM that cannot be resumed can be told instead.
pub(super) fn or_boot(cx: &StepCx) -> String {
    let name = &cx.vm.spec.name;
    format!("it stays suspended; `banger vm start --discard-memory {name}` boots it from its disks")
}

fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

/// Waits for `work`, at most `limit`, and only as long as the VMM lives.
pub(super) async fn while_alive<T>(
    cx: &StepCx,
    operation: &'static str,
    limit: Duration,
    overdue: Code,
    work: impl Future<Output = Result<T, HostError>>,
) -> Result<T, HostError> {
    let name = cx.vm.spec.name.as_str();
    let process = cx
        .observed
        .process()
        .map_err(|error| HostError::new(Code::Internal, operation, name).because(error))?;
    let died = |why: String| HostError::new(Code::GuestDied, operation, name).because(why);
    let exited = cx.ports.process.exited(cx.vm.id, &process);
    tokio::pin!(exited);
    let error = tokio::select! {
        biased;
        done = work => match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        },
        exit = &mut exited => return Err(died(format!("the VMM ended: {}", exit?.how))),
        () = tokio::time::sleep(limit) => {
            let cause = format!("not ready within {} s", limit.as_secs_f32());
            return Err(HostError::new(overdue, operation, name).because(cause));
        }
    };
    // Of a VMM that dies, its connections break first; how it ended says more than that.
    match tokio::time::timeout(LAST_BREATH, exited).await {
        Ok(Ok(exit)) => Err(died(format!("the VMM ended: {}: {}", exit.how, chain(&error)))),
        Ok(Err(_)) | Err(_) => Err(error),
    }
}

/// Adds the console's last lines, and where there is more.
async fn with_story(cx: &StepCx, error: HostError) -> HostError {
    let tail = cx.ports.disk.console_tail(cx.vm.id, cx.settings.console_lines);
    let lines = match tokio::time::timeout(CONSOLE_LIMIT, tail).await {
        Ok(Ok(lines)) if error.detail.is_empty() => lines,
        _ => vec![],
    };
    let name = &cx.vm.spec.name;
    let more = match lines.is_empty() && error.detail.is_empty() {
        true => format!("what the VMM said: banger vm logs --source vmm {name}"),
        false => format!("the whole console: banger vm logs {name}"),
    };
    error.with_detail(lines).hint(more)
}
