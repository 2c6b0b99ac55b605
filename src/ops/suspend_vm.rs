//! Suspending a VM: its guest stands still, its memory is written to disk, and all that it used of
//! the host goes. Until the memory is whole and durable, everything can be taken back, and the
//! guest goes on as if nothing had been asked.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::{MARGIN, MEMORY_LIMIT, while_alive};
use super::start_vm::open_root;
use super::teardown::free_steps;
use super::{Direction, Phase, Plan, Settings, Step, StepCx, StepError};
use crate::model::{Code, DiskBackend, ResourceKind, SavedBy, Size};
use crate::ports::HostError;

/// For a guest to write out what it has not yet. One that takes longer is suspended all the same:
/// what it has not written is in the memory that is saved.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// For an agent to be told of the time.
const CLOCK_LIMIT: Duration = Duration::from_secs(2);

#[must_use]
pub fn suspend_vm() -> Plan {
    let save: Vec<Box<dyn Step>> =
        vec![Box::new(HideName), Box::new(SaveMemory), Box::new(KeepMemory)];
    vec![
        Phase { direction: Direction::Back, steps: save },
        Phase { direction: Direction::Forward, steps: free_steps() },
    ]
}

/// First: nobody is sent to a guest that is about to stand still.
#[derive(Debug)]
struct HideName;

impl Step for HideName {
    fn name(&self) -> &'static str {
        "withdraw-name"
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            cx.ports.names.withdraw(cx.op, &cx.vm.spec.name, cx.vm.address).await?;
            Ok(String::new())
        }
        .boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.names.publish(cx.op, &cx.vm.spec.name, cx.vm.address).await?) }
            .boxed()
    }
}

#[derive(Debug)]
struct SaveMemory;

impl Step for SaveMemory {
    fn name(&self) -> &'static str {
        "save-memory"
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        SYNC_LIMIT + MEMORY_LIMIT + MARGIN
    }

    fn interruptible(&self) -> bool {
        true
    }

    /// The output is who can read the memory.
    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let (vm, paths) = (cx.vm.id, cx.ports.disk.paths(cx.vm.id));
            let most = Size::from_mib(cx.vm.spec.memory_mib);
            cx.ports.disk.ensure_saving(cx.op, vm, most).await?;
            let found = cx.ports.process.find(cx.op, vm).await?;
            let gone = || HostError::new(Code::GuestDied, "suspend", cx.vm.spec.name.as_str());
            cx.observed.set_process(found.ok_or_else(|| gone().because("its VMM is gone"))?);
            // So that little is lost if the memory is thrown away one day.
            let synced = cx.ports.guest.sync(cx.op, &paths, SYNC_LIMIT);
            if let Ok(Err(error)) = tokio::time::timeout(SYNC_LIMIT, synced).await {
                tracing::warn!(op_id = %cx.op, error = %crate::model::chain(&error), "not synced");
            }
            let saving = cx.ports.hypervisor.save(cx.op, &paths);
            let by =
                while_alive(cx, "save the memory of", MEMORY_LIMIT, Code::Deadline, saving).await?;
            Ok(by.to_string())
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        if let Ok(by) = output.parse::<SavedBy>() {
            cx.observed.set_saved_by(by);
        }
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            let paths = cx.ports.disk.paths(cx.vm.id);
            // A guest whose VMM has ended does not go on; whoever watches the process tells.
            if cx.ports.process.find(cx.op, cx.vm.id).await?.is_some() {
                cx.ports.hypervisor.unpause(cx.op, &paths).await?;
                let now = cx.ports.clock.unix_ms();
                let told = cx.ports.guest.set_clock(cx.op, &paths, now);
                drop(tokio::time::timeout(CLOCK_LIMIT, told).await);
            }
            // After the VMM was told to stop writing.
            cx.ports.disk.discard_saving(cx.op, cx.vm.id).await?;
            Ok(())
        }
        .boxed()
    }
}

/// From here on the memory is the guest, and not the process.
#[derive(Debug)]
struct KeepMemory;

impl Step for KeepMemory {
    fn name(&self) -> &'static str {
        "keep-memory"
    }

    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![ResourceKind::Memory]
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        MEMORY_LIMIT
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let by = cx.observed.saved_by()?;
            // Open already, and so only asked for.
            let root = match cx.vm.spec.root.backend {
                DiskBackend::DmSnapshot => Some(open_root(cx).await?),
                DiskBackend::Reflink | DiskBackend::Overlay => None,
            };
            cx.ports.disk.keep_saved(cx.op, cx.vm.id, &by, root.as_deref()).await?;
            Ok(String::new())
        }
        .boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.disk.unkeep_saved(cx.op, cx.vm.id).await?) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, Outcome, VmRecord};
    use crate::ops::harness::{
        Case, MemJournal, bare, crashed, created, record, rig, running, survives, suspended,
    };
    use crate::ops::{delete_vm, kill_vm, plan_for_recovery, recover, run, start_after_clean_up};

    fn plan(_: &VmRecord) -> Plan {
        suspend_vm()
    }

    fn kill(_: &VmRecord) -> Plan {
        kill_vm(None)
    }

    fn delete(_: &VmRecord) -> Plan {
        delete_vm()
    }

    survives!(suspend, Case::new(OpKind::SuspendVm, plan, running().await));
    survives!(kill_what_is_suspended, Case::new(OpKind::KillVm, kill, suspended().await));
    survives!(delete_what_is_suspended, Case::new(OpKind::DeleteVm, delete, suspended().await));
    survives!(
        start_without_its_memory,
        Case::new(OpKind::StartVm, start_after_clean_up, suspended().await)
    );

    #[tokio::test]
    async fn nothing_but_disks_and_memory_is_left() {
        let mut world = suspended().await;
        assert!(world.processes.is_empty() && world.run_dirs.is_empty() && world.nat.is_empty());
        assert!(world.leases.is_empty() && world.names.is_empty() && world.configs.is_empty());
        assert_eq!(world.memory.len(), 1);
        world.memory.clear();
        assert_eq!(world, created().await);
        let (cx, host) = rig(suspended().await, Duration::ZERO);
        run(&delete_vm(), &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(host.world(), bare());
    }

    #[tokio::test]
    async fn a_vmm_that_died_is_not_suspended() {
        let (cx, _) = rig(crashed().await, Duration::ZERO);
        let end = run(&suspend_vm(), &cx, &mut MemJournal::default()).await.unwrap();
        assert!(matches!(end.outcome, Outcome::RolledBack { .. }), "{:?}", end.outcome);
        assert!(end.failure.unwrap().message.contains("its VMM is gone"));
    }

    #[tokio::test]
    async fn what_does_not_fit_on_the_disk_is_refused_before_the_guest_stands_still() {
        let (cx, host) = rig(running().await, Duration::ZERO);
        let mut vm = record();
        vm.spec.memory_mib = u32::MAX;
        let cx = StepCx { vm: vm.into(), ..cx };
        let end = run(&suspend_vm(), &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(end.failure.unwrap().code, Code::NoSpace);
        assert_eq!(host.calls_of("hypervisor.save"), 0);
        assert_eq!(host.world(), running().await);
    }

    /// The record says no more that it was suspended, so what it held must not stay behind.
    #[tokio::test]
    async fn a_cold_start_cut_short_before_its_first_step_leaves_no_memory() {
        let (cx, host) = rig(suspended().await, Duration::ZERO);
        let plan = plan_for_recovery(OpKind::StartVm, &cx.vm, &[]).unwrap();
        let end = recover(&plan, &cx, &mut MemJournal::default(), &[]).await.unwrap();
        assert!(matches!(end.outcome, Outcome::RolledBack { .. }), "{:?}", end.outcome);
        assert_eq!(host.world(), created().await);
    }
}
