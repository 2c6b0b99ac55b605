//! Resuming a suspended VM. Up to the point where a VMM holds its memory and the guest has not run
//! yet, all can be taken back, and it stays suspended. Then the saved memory goes, before the guest
//! goes on: from its first instruction on its disks are no longer those that the memory knows.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::{LoadMemory, MARGIN, or_boot, while_alive};
use super::start_vm::{PublishName, open_steps, spawn_steps};
use super::step::no_undo;
use super::teardown::RemoveSaved;
use super::{Direction, Phase, Plan, Settings, Step, StepCx, StepError};
use crate::model::{Code, EventKind, VmRecord, chain};
use crate::ports::HostError;

/// For an agent to answer that has just been woken.
const TELL_LIMIT: Duration = Duration::from_secs(20);
/// One try of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

#[must_use]
pub fn resume_vm(vm: &VmRecord) -> Plan {
    let mut load: Vec<Box<dyn Step>> = vec![Box::new(ResolveMemory)];
    load.extend(open_steps(vm));
    load.extend(spawn_steps(vm, false));
    load.push(Box::new(LoadMemory));
    let go_on: Vec<Box<dyn Step>> =
        vec![Box::new(RemoveSaved), Box::new(GoOn), Box::new(TellGuest), Box::new(PublishName)];
    vec![
        Phase { direction: Direction::Back, steps: load },
        Phase { direction: Direction::Forward, steps: go_on },
    ]
}

/// Finds out what was saved and whether this host can read it, before anything is made.
#[derive(Debug)]
struct ResolveMemory;

impl Step for ResolveMemory {
    fn name(&self) -> &'static str {
        "resolve-memory"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let failed = |code| HostError::new(code, "resume", cx.vm.spec.name.as_str());
            let saved = cx.ports.disk.saved_by(cx.vm.id).await?;
            let saved = saved.ok_or_else(|| {
                failed(Code::NotFound).because("its saved memory is not there").hint(or_boot(cx))
            })?;
            let files = cx.ports.images.boot_files(cx.op, cx.vm.image, cx.vm.kernel).await?;
            cx.observed.set_boot(files);
            let vmm = cx.ports.hypervisor.describe(saved.choice()).await;
            let vmm = vmm.map_err(|error| error.hint(or_boot(cx)))?;
            if !vmm.can_read(&saved) {
                let why = format!("its memory was saved by {saved}, and here is {vmm}");
                return Err(failed(Code::Refused).because(why).hint(or_boot(cx)).into());
            }
            Ok(vmm.to_string())
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        cx.observed.set_vmm(output.to_owned());
        cx.observed.set_resumes(true);
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("it looks")
    }
}

#[derive(Debug)]
struct GoOn;

impl Step for GoOn {
    fn name(&self) -> &'static str {
        "go-on"
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let paths = cx.ports.disk.paths(cx.vm.id);
            let Err(error) = cx.ports.hypervisor.unpause(cx.op, &paths).await else {
                return Ok("the guest runs".to_owned());
            };
            match cx.ports.process.find(cx.op, cx.vm.id).await? {
                Some(_) => Err(error.into()),
                // That is a crash, and told and dealt with as one.
                None => Ok("the VMM has ended".to_owned()),
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("a guest that went on cannot be taken back")
    }
}

/// Never fails: a guest that runs is not taken down for an agent that does not answer.
#[derive(Debug)]
struct TellGuest;

impl TellGuest {
    async fn told(cx: &StepCx) -> Result<String, HostError> {
        let paths = cx.ports.disk.paths(cx.vm.id);
        loop {
            let now = cx.ports.clock.unix_ms();
            let told = cx.ports.guest.resumed(cx.op, &paths, now, ANSWER_LIMIT);
            match told.await {
                Ok(boot_id) => return Ok(boot_id),
                Err(error) => {
                    tracing::debug!(op_id = %cx.op, error = %chain(&error), "not told yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Step for TellGuest {
    fn name(&self) -> &'static str {
        "tell-guest"
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        TELL_LIMIT + MARGIN
    }

    /// The output is the guest's boot id, which is the one it had.
    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let told = Self::told(cx);
            let told = while_alive(cx, "tell", TELL_LIMIT, Code::GuestUnreachable, told).await;
            Ok(told.unwrap_or_else(|error| {
                let why = chain(&error);
                let text = format!("the guest goes on with the time it had: {why}");
                (cx.watcher)(EventKind::Note { text });
                String::new()
            }))
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        if !output.is_empty() {
            cx.observed.set_guest_boot_id(output.to_owned());
        }
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("it tells")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, Outcome};
    use crate::ops::harness::{Case, MemJournal, rig, running, survives, suspended};
    use crate::ops::{run, suspend_vm};
    use crate::sim::{At, Fault};

    survives!(resume, Case::new(OpKind::ResumeVm, resume_vm, suspended().await));
    survives!(resume_slowly, Case::new(OpKind::ResumeVm, resume_vm, suspended().await).slow_boot());

    #[tokio::test]
    async fn what_ran_before_runs_again_and_nothing_else_is_there() {
        let before = running().await;
        let (cx, host) = rig(before.clone(), Duration::ZERO);
        for _ in 0..2 {
            run(&suspend_vm(), &cx, &mut MemJournal::default()).await.unwrap();
            assert_ne!(host.world().shape(), before.clone().shape());
            let plan = resume_vm(&cx.vm);
            let end = run(&plan, &cx, &mut MemJournal::default()).await.unwrap();
            assert_eq!(end.outcome, Outcome::Done);
            assert_eq!(host.world().shape(), before.clone().shape());
            let boot_id = cx.observed.handles().guest_boot_id.unwrap();
            assert_eq!(boot_id, "sim-boot-1", "the same boot");
        }
    }

    #[tokio::test]
    async fn memory_that_is_not_there_or_anothers_is_named_with_the_way_out() {
        for spoil in [(|world| world.memory.clear()) as fn(&mut crate::sim::World), |world| {
            world.memory.values_mut().for_each(|memory| memory.version = "0".to_owned())
        }] {
            let (cx, host) = rig(suspended().await, Duration::ZERO);
            host.edit(spoil);
            let left = host.world();
            let plan = resume_vm(&cx.vm);
            let end = run(&plan, &cx, &mut MemJournal::default()).await.unwrap();
            let failure = end.failure.unwrap();
            let way_out = failure.hints.iter().any(|hint| hint.contains("--discard-memory web"));
            assert!(way_out, "{failure:?}");
            assert_eq!(host.world(), left);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_whose_agent_is_silent_goes_on_all_the_same() {
        let (cx, host) = rig(suspended().await, Duration::ZERO);
        host.plan(At::Every("guest.resumed".to_owned()), Fault::Hang);
        let plan = resume_vm(&cx.vm);
        let end = run(&plan, &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(end.outcome, Outcome::Done);
        assert_eq!(host.world().shape(), running().await.shape());
    }
}
