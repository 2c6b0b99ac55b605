//! A VM's first start from the memory of a guest that has booted, and how that memory comes to be.
//!
//! ```text
//!              ensure-disks           spawn-vmm                        keep-snapshot    adopt-guest
//! none yet     fresh                  boots blank (… await-ready)      memory, disks    it is this VM's
//! one found    copies of its disks    goes on, and is this VM's guest
//! otherwise    fresh                  boots
//! ```
//!
//! Whatever fails before the guest has been adopted leads to a boot from fresh disks, for nothing of
//! the user's is on the others; the watcher is told why in one line. What must not be done here:
//! make a user's VM fail over a snapshot that could not be kept.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::{MARGIN, MEMORY_LIMIT, while_alive};
use super::create_vm::{disk_plan, fresh_disks};
use super::start_vm::{self, boot_plan, guest_setup, make_run_dir, write_config};
use super::step::no_undo;
use super::{Settings, Step, StepCx, StepError};
use crate::model::{Code, DiskBackend, EventKind, ImageInit, ProcessIdentity, Size, VmSpec, chain};
use crate::ports::{BootFiles, Claim, Found, HostError, Likeness, Snapshot, VmmDescription};

/// Names, values and the image's own words that fit beside all else in one message to the agent.
const MAX_TOLD: usize = 48 << 10;
/// To give back what a copy of the memory took.
const TRIES: u32 = 3;
const SYNC_LIMIT: Duration = Duration::from_secs(20);
/// Of a snapshot, besides its memory: what a boot has written to its disks, and the devices.
const BESIDES: Size = Size::from_mib(64);

/// How a VM gets its guest.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Boots,
    /// It boots blank, and its memory is kept for others.
    Leaves(Likeness, Claim),
    /// From the memory of another.
    GoesOn(Snapshot),
    /// It has, and is this VM's.
    WentOn,
}

/// Never fails: what cannot be found out leads to a boot.
async fn choose(cx: &StepCx) -> Origin {
    match look(cx).await {
        Ok(origin) => origin,
        Err(error) => {
            note(cx, format!("starts cold: {}", chain(&error)));
            Origin::Boots
        }
    }
}

async fn look(cx: &StepCx) -> Result<Origin, HostError> {
    let spec = &cx.vm.spec;
    let refused = |why: String| {
        Err(HostError::new(Code::Refused, "go on from memory as", spec.name.as_str()).because(why))
    };
    if spec.root.backend == DiskBackend::DmSnapshot {
        return refused("its root is a device, which is not copied".to_owned());
    }
    let env: usize = spec.env.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let told = env + cx.image.as_ref().map_or(0, |image| image.config.bytes());
    if told > MAX_TOLD {
        return refused(format!("{told} bytes of environment are too many"));
    }
    let files = cx.ports.images.boot_files(cx.op, cx.vm.image, cx.vm.kernel).await?;
    let vmm = cx.ports.hypervisor.describe(spec.vmm).await?;
    cx.observed.set_boot(files.clone());
    cx.observed.set_vmm(vmm.to_string());
    let like = likeness(cx, spec, files, &vmm);
    Ok(match cx.ports.warm.find(cx.op, &like).await? {
        Found::Snapshot(snapshot) => Origin::GoesOn(snapshot),
        Found::Missing(claim) => Origin::Leaves(like, claim),
        Found::BeingMade => {
            note(cx, "starts cold: another VM is about to leave its memory".to_owned());
            Origin::Boots
        }
    })
}

fn likeness(cx: &StepCx, spec: &VmSpec, files: BootFiles, vmm: &VmmDescription) -> Likeness {
    let init = cx.image.as_ref().map_or(ImageInit::Any, |image| image.config.init());
    Likeness {
        image: cx.vm.image,
        kernel: cx.vm.kernel,
        init: init.key().to_owned(),
        initrd: files.initrd,
        vcpu: spec.vcpu,
        memory_mib: spec.memory_mib,
        root: spec.root.backend,
        console: spec.console,
        disk: spec.disk,
        work_disk: spec.work_disk,
        vmm: format!("{} {} {}", vmm.kind.as_str(), vmm.version, vmm.accelerator),
    }
}

/// Fresh disks, or copies of a snapshot's.
pub(super) async fn disks(cx: &StepCx) -> Result<String, StepError> {
    let origin = match cx.observed.origin() {
        Some(chosen) => chosen,
        None => choose(cx).await,
    };
    cx.observed.set_origin(origin.clone());
    let Origin::GoesOn(snapshot) = origin else { return fresh_disks(cx).await };
    let plan = disk_plan(&cx.vm);
    let copied = cx.ports.disk.ensure_copied_disks(cx.op, cx.vm.id, &plan, &snapshot.dir).await;
    match copied {
        Ok(()) => {
            let key = snapshot.dir.file_name().unwrap_or_default().to_string_lossy();
            Ok(format!("copies of those of snapshot {}", key.chars().take(12).collect::<String>()))
        }
        Err(error) => {
            give_up(cx, &snapshot, &chain(&error)).await;
            cx.ports.disk.remove_vm(cx.op, cx.vm.id).await?;
            fresh_disks(cx).await
        }
    }
}

/// The process of a guest that boots, or of one that has gone on.
pub(super) async fn spawn(cx: &StepCx) -> Result<ProcessIdentity, StepError> {
    if let Some(Origin::GoesOn(snapshot)) = cx.observed.origin() {
        match go_on(cx, &snapshot).await {
            Ok(process) => return Ok(process),
            Err(_) if cx.cancel.is_cancelled() => return Err(StepError::Cancelled),
            Err(error) => boot_instead(cx, &snapshot, &error).await?,
        }
    }
    start_vm::spawn(cx).await
}

/// The guest of `snapshot`, made this VM's. Failing, it leaves what [`boot_instead`] takes away.
async fn go_on(cx: &StepCx, snapshot: &Snapshot) -> Result<ProcessIdentity, StepError> {
    cx.ports.disk.link_saved(cx.op, cx.vm.id, &snapshot.dir).await?;
    cx.observed.set_resumes(true);
    let process = start_vm::spawn(cx).await?;
    cx.observed.set_process(process.clone());
    let (kind, plan) = (cx.observed.vmm()?, boot_plan(cx)?);
    let setup = guest_setup(cx).await?;
    let going_on = async {
        cx.ports.hypervisor.boot(cx.op, kind, &plan).await?;
        // What is there of it now the VMM holds.
        cx.ports.disk.remove_saved(cx.op, cx.vm.id).await?;
        cx.ports.hypervisor.unpause(cx.op, &plan.paths).await?;
        let now = cx.ports.clock.unix_ms();
        cx.ports.guest.adopt(cx.op, &plan.paths, &setup, now).await
    };
    let limit = cx.settings.step_limit;
    let ready = while_alive(cx, "go on from memory as", limit, Code::Deadline, going_on).await?;
    cx.observed.set_resumes(false);
    cx.observed.set_guest_boot_id(ready.boot_id);
    cx.observed.set_origin(Origin::WentOn);
    Ok(process)
}

/// Everything as it is before a VMM is started that boots.
async fn boot_instead(cx: &StepCx, snapshot: &Snapshot, why: &StepError) -> Result<(), StepError> {
    let (op, vm, ports) = (cx.op, cx.vm.id, &cx.ports);
    give_up(cx, snapshot, &chain(why)).await;
    cx.observed.set_resumes(false);
    ports.process.ensure_gone(op, vm).await?;
    cx.observed.forget_process();
    ports.disk.remove_vm(op, vm).await?;
    fresh_disks(cx).await?;
    make_run_dir(cx).await?;
    write_config(cx).await.map(drop)
}

/// What failed once is not tried again, by this VM or another.
async fn give_up(cx: &StepCx, snapshot: &Snapshot, why: &str) {
    note(cx, format!("starts cold: {why}"));
    cx.observed.set_origin(Origin::Boots);
    if let Err(error) = cx.ports.warm.remove(cx.op, snapshot).await {
        tracing::warn!(op_id = %cx.op, error = %chain(&error), "snapshot not removed");
    }
}

/// Its files are of the host's cache, like an initramfs, and the guest goes on as before.
#[derive(Debug)]
pub(super) struct KeepSnapshot;

impl Step for KeepSnapshot {
    fn name(&self) -> &'static str {
        "keep-snapshot"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        MEMORY_LIMIT + SYNC_LIMIT + MARGIN
    }

    fn interruptible(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let Some(Origin::Leaves(like, _claim)) = cx.observed.origin() else {
                return Ok("none to keep".to_owned());
            };
            match keep(cx, &like).await? {
                Ok(()) => Ok("kept".to_owned()),
                Err(error) => {
                    let why = format!("its memory is not kept for others: {}", chain(&error));
                    note(cx, why.clone());
                    Ok(why)
                }
            }
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("a snapshot is nobody's, and shared")
    }
}

/// The outer error is the guest's end, the inner one the snapshot's alone.
async fn keep(cx: &StepCx, like: &Likeness) -> Result<Result<(), HostError>, StepError> {
    let (op, vm, ports) = (cx.op, cx.vm.id, &cx.ports);
    let paths = ports.disk.paths(vm);
    let memory = Size::from_mib(like.memory_mib);
    let room = Size::from_bytes(memory.bytes() + BESIDES.bytes());
    let prepared = async {
        let draft = ports.warm.draft(op, like, room).await?;
        ports.disk.ensure_saving(op, vm, memory).await?;
        ports.guest.sync(op, &paths, SYNC_LIMIT).await?;
        Ok(draft)
    };
    let draft = match prepared.await {
        Ok(draft) => draft,
        Err(error) => return Ok(Err(error)),
    };
    let (to, disks) = (draft.snapshot().dir.clone(), disk_plan(&cx.vm));
    let saved = async {
        ports.hypervisor.save(op, &paths).await?;
        ports.disk.copy_disks(op, vm, &disks, &to).await
    };
    let saved = while_alive(cx, "save the memory of", MEMORY_LIMIT, Code::Deadline, saved).await;
    ports.hypervisor.unpause(op, &paths).await?;
    let kept = async {
        saved?;
        ports.disk.copy_saving(op, vm, &to).await?;
        ports.warm.keep(op, like, draft).await
    };
    let kept = kept.await;
    // The files stay, for the VMM may hold them open, and must not go on holding the memory.
    let mut emptied = Ok(());
    for _ in 0..TRIES {
        emptied = ports.disk.discard_saving(op, vm).await;
        if emptied.is_ok() {
            break;
        }
    }
    Ok(kept.and(emptied))
}

/// A guest that booted blank becomes this VM's.
#[derive(Debug)]
pub(super) struct AdoptGuest;

impl Step for AdoptGuest {
    fn name(&self) -> &'static str {
        "adopt-guest"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn interruptible(&self) -> bool {
        true
    }

    /// The output is the guest's boot id.
    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let Some(Origin::Leaves(..)) = cx.observed.origin() else {
                return Ok(cx.observed.handles().guest_boot_id.unwrap_or_default());
            };
            let (paths, setup) = (cx.ports.disk.paths(cx.vm.id), guest_setup(cx).await?);
            let now = cx.ports.clock.unix_ms();
            let adopting = cx.ports.guest.adopt(cx.op, &paths, &setup, now);
            let limit = cx.settings.step_limit;
            let ready =
                while_alive(cx, "tell who it is to", limit, Code::Deadline, adopting).await?;
            cx.observed.set_origin(Origin::Boots);
            Ok(ready.boot_id)
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        cx.observed.set_guest_boot_id(output.to_owned());
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("what it was told goes with the process")
    }
}

fn note(cx: &StepCx, text: String) {
    (cx.watcher)(EventKind::Note { text });
}

#[cfg(test)]
#[path = "warm_tests.rs"]
mod tests;
