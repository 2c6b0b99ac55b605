//! Disks that a guest did not leave clean are checked before the next one gets them. After the root
//! is open and before anything could write to it; never where a memory waits that knows them.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::MARGIN;
use super::create_vm::disk_plan;
use super::step::no_undo;
use super::{Settings, Step, StepCx, StepError};
use crate::model::{Code, DiskBackend, EventKind};
use crate::ports::{CheckedDisk, HostError};

/// Of both disks, each with its own limit.
pub(super) const CHECK_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct CheckDisks {
    /// See [`crate::ports::DiskHost::check_disks`].
    pub(super) repair: bool,
}

impl Step for CheckDisks {
    fn name(&self) -> &'static str {
        "check-disks"
    }

    fn has_effect(&self) -> bool {
        false // none to take back: what is sound stays sound
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        CHECK_LIMIT + MARGIN
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let (vm, plan) = (cx.vm.id, disk_plan(&cx.vm));
            let root = match cx.vm.spec.root.backend {
                DiskBackend::DmSnapshot => Some(cx.observed.root_device()?),
                DiskBackend::Reflink | DiskBackend::Overlay => None,
            };
            let checked =
                cx.ports.disk.check_disks(cx.op, vm, &plan, root.as_deref(), self.repair).await;
            let checked = checked.map_err(|error| with_way_out(cx, error))?;
            for disk in &checked {
                tell(cx, disk);
            }
            Ok(match checked.is_empty() {
                true => "clean".to_owned(),
                false => checked.iter().map(word).collect::<Vec<_>>().join("; "),
            })
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("what is sound stays sound")
    }
}

fn word(disk: &CheckedDisk) -> String {
    let name = disk.path.file_name().unwrap_or_default().to_string_lossy();
    let done = if disk.corrected.is_some() { "corrected" } else { "sound" };
    format!("{name}: {}, {done}", disk.why)
}

/// That a journal was replayed is no news; that something was wrong is.
fn tell(cx: &StepCx, disk: &CheckedDisk) {
    let Some(said) = &disk.corrected else { return };
    let (path, name) = (disk.path.display(), &cx.vm.spec.name);
    let text = format!("disk {path} of {name} was corrected: {}", said.join("; "));
    (cx.watcher)(EventKind::Note { text });
}

fn with_way_out(cx: &StepCx, error: HostError) -> HostError {
    match error.code {
        Code::Corrupt => {
            let name = &cx.vm.spec.name;
            error.hint(format!(
                "`banger vm start --repair {name}` puts right what can be and keeps what lost its \
                 name in lost+found; copy the disk first if what is on it matters"
            ))
        }
        Code::Deadline => {
            error.hint("check it by hand, as root and with the VM stopped: `e2fsck -f`")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, Outcome};
    use crate::ops::harness::{
        Case, MemJournal, crashed, created, record, rig, survives, suspended,
    };
    use crate::ops::{resume_vm, run, start_vm, start_with_repair};

    survives!(repair, Case::new(OpKind::StartVm, start_with_repair, crashed().await));

    #[tokio::test]
    async fn a_damaged_disk_is_not_started_from_until_a_repair_is_asked_for() {
        let (cx, host) = rig(created().await, Duration::ZERO);
        host.edit(|world| world.damaged = [record().id].into());
        let left = host.world();
        let end = run(&start_vm(&cx.vm), &cx, &mut MemJournal::default()).await.unwrap();
        let failure = end.failure.unwrap();
        assert_eq!(failure.code, Code::Corrupt);
        assert!(failure.hints.iter().any(|hint| hint.contains("--repair web")), "{failure:?}");
        assert_eq!(host.world(), left);
        let (told, notes) = std::sync::mpsc::channel();
        let watcher = std::sync::Arc::new(move |event| drop(told.send(event)));
        let cx = StepCx { watcher, ..cx };
        let end = run(&start_with_repair(&cx.vm), &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(end.outcome, Outcome::Done);
        let told = |event: EventKind| matches!(event, EventKind::Note { text } if text.contains("of web was corrected"));
        assert!(notes.try_iter().any(told));
    }

    #[tokio::test]
    async fn disks_that_a_memory_knows_are_never_checked() {
        let (cx, host) = rig(suspended().await, Duration::ZERO);
        host.edit(|world| world.damaged = [record().id].into());
        let end = run(&resume_vm(&cx.vm), &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(end.outcome, Outcome::Done);
        assert_eq!(host.calls_of("disk.check_disks"), 0);
    }

    #[tokio::test]
    async fn fresh_disks_are_not_checked() {
        let (cx, host) = rig(crate::ops::harness::bare(), Duration::ZERO);
        let plan = crate::ops::create_and_start(&cx.vm);
        let end = run(&plan, &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(end.outcome, Outcome::Done);
        assert_eq!(host.calls_of("disk.check_disks"), 0);
    }
}
