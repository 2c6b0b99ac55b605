//! Starting a VM, read from top to bottom. Its disks are there; everything else is made here and
//! taken away in reverse if the guest does not come up.

use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::{AwaitReady, AwaitRunning};
use super::check_disks::CheckDisks;
use super::create_vm::disk_plan;
use super::furnish::FurnishGuest;
use super::kill_vm::kill_steps;
use super::step::no_undo;
use super::warm::{self, AdoptGuest, KeepSnapshot, Origin};
use super::{Direction, Phase, Plan, Settings, Step, StepCx, StepError};
use crate::model::{
    Code, DiskBackend, Machine, ProcessIdentity, ResourceKind, Size, TapName, VmRecord, VmmKind,
    lack_text, lacking,
};
use crate::ports::{
    BaseImage, BootPlan, DiskAttachment, GuestSetup, HostError, LogKind, RootPlan, SpawnRequest,
    VmPaths,
};

#[must_use]
pub fn start_vm(vm: &VmRecord) -> Plan {
    start(vm, false, Some(CheckDisks { repair: false }))
}

/// Of a VM whose disks have just been made. `warm`: it may go on from a snapshot, or leave one.
pub(super) fn first_start(vm: &VmRecord, warm: bool) -> Plan {
    start(vm, warm, None)
}

fn start(vm: &VmRecord, first: bool, check: Option<CheckDisks>) -> Plan {
    let mut steps: Vec<Box<dyn Step>> = vec![Box::new(ResolveBoot)];
    steps.extend(open_steps(vm));
    steps.extend(check.map(|check| Box::new(check) as Box<dyn Step>));
    steps.extend(spawn_steps(vm, first));
    steps.extend([Box::new(AwaitRunning) as Box<dyn Step>, Box::new(AwaitReady)]);
    if first {
        steps.extend([Box::new(KeepSnapshot) as Box<dyn Step>, Box::new(AdoptGuest)]);
    }
    steps.push(Box::new(FurnishGuest));
    steps.push(Box::new(PublishName)); // last: a name must not lead to a guest that is not there yet
    vec![Phase { direction: Direction::Back, steps }]
}

/// What makes its disks ready to be used.
pub(super) fn open_steps(vm: &VmRecord) -> Vec<Box<dyn Step>> {
    match vm.spec.root.backend {
        DiskBackend::DmSnapshot => vec![Box::new(OpenRoot)],
        DiskBackend::Reflink | DiskBackend::Overlay => vec![],
    }
}

/// Everything up to a VMM that waits to be told what to run, once it is known what that will be and
/// its disks are ready. `first`: see [`first_start`].
pub(super) fn spawn_steps(vm: &VmRecord, first: bool) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![Box::new(LeaseTap), Box::new(EnsureTap)];
    if vm.spec.nat {
        steps.push(Box::new(AllowNat));
    }
    steps.extend([
        Box::new(MakeRunDir) as Box<dyn Step>,
        Box::new(WriteConfig),
        Box::new(SpawnVmm { first }),
    ]);
    steps
}

/// For a VM that crashed or got stuck: what is left of its last run goes first, for good.
#[must_use]
pub fn start_after_clean_up(vm: &VmRecord) -> Plan {
    let mut plan = vec![Phase { direction: Direction::Forward, steps: kill_steps(None) }];
    plan.extend(start_vm(vm));
    plan
}

/// The same for a VM whose disks are damaged.
#[must_use]
pub fn start_with_repair(vm: &VmRecord) -> Plan {
    let mut plan = vec![Phase { direction: Direction::Forward, steps: kill_steps(None) }];
    plan.extend(start(vm, false, Some(CheckDisks { repair: true })));
    plan
}

/// Finds out what it will boot from and which VMM runs it, before anything is made.
#[derive(Debug)]
struct ResolveBoot;

impl Step for ResolveBoot {
    fn name(&self) -> &'static str {
        "resolve-boot"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            // A warm start has found out for which of them there is a snapshot; those it must be.
            if let (Ok(_), Some(vmm)) = (cx.observed.boot(), cx.observed.handles().vmm) {
                return Ok(vmm);
            }
            let files = cx.ports.images.boot_files(cx.op, cx.vm.image, cx.vm.kernel).await?;
            cx.observed.set_boot(files);
            let vmm = cx.ports.hypervisor.describe(cx.vm.spec.vmm).await?;
            can_boot(cx, vmm.kind)?;
            Ok(vmm.to_string())
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        cx.observed.set_vmm(output.to_owned());
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("it looks, and an initramfs that it put together is shared and kept")
    }
}

/// The VMM may be another than the one that the VM was made for.
fn can_boot(cx: &StepCx, vmm: VmmKind) -> Result<(), HostError> {
    let spec = &cx.vm.spec;
    let lacks = lacking(&cx.kernel, Machine::here(vmm, spec.root.backend));
    if lacks.is_empty() {
        return Ok(());
    }
    let error = HostError::new(Code::Refused, "boot kernel", spec.kernel.as_str());
    Err(error.because(format!("it {}", lack_text(&lacks))))
}

/// Where the device is, which is made unless it is there.
pub(super) async fn open_root(cx: &StepCx) -> Result<PathBuf, StepError> {
    let plan = disk_plan(&cx.vm);
    let base = cx.ports.images.base(cx.op, cx.vm.image).await?;
    Ok(cx.ports.disk.open_root(cx.op, cx.vm.id, &plan, &base).await?)
}

/// Its output is where the device is.
#[derive(Debug)]
struct OpenRoot;

impl Step for OpenRoot {
    fn name(&self) -> &'static str {
        "open-root"
    }

    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![ResourceKind::Device]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move { Ok(open_root(cx).await?.display().to_string()) }.boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        cx.observed.set_root_device(output.into());
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.disk.close_root(cx.op, cx.vm.id).await?) }.boxed()
    }
}

#[derive(Debug)]
struct LeaseTap;

impl Step for LeaseTap {
    fn name(&self) -> &'static str {
        "lease-tap"
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move { Ok(cx.ports.taps.lease(cx.op, cx.vm.id).await?.0) }.boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        cx.observed.set_tap(TapName(output.to_owned()));
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            cx.ports.taps.release(cx.op, cx.vm.id).await?;
            cx.observed.clear();
            Ok(())
        }
        .boxed()
    }
}

/// The pool made the tap some time ago; somebody may have removed it since.
#[derive(Debug)]
struct EnsureTap;

impl Step for EnsureTap {
    fn name(&self) -> &'static str {
        "ensure-tap"
    }

    fn has_effect(&self) -> bool {
        false // on the tap that the lease, which is durable, names
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let tap = cx.observed.tap()?;
            cx.ports.net.ensure_tap(cx.op, &tap).await?;
            Ok(tap.0)
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("the tap is the pool's, with or without a lease")
    }
}

#[derive(Debug)]
struct AllowNat;

impl Step for AllowNat {
    fn name(&self) -> &'static str {
        "allow-nat"
    }

    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![ResourceKind::Nat]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            cx.ports.net.ensure_nat(cx.op, cx.vm.id, cx.vm.address).await?;
            Ok(cx.vm.address.to_string())
        }
        .boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.net.remove_nat(cx.op, cx.vm.id, cx.vm.address).await?) }.boxed()
    }
}

pub(super) async fn make_run_dir(cx: &StepCx) -> Result<String, StepError> {
    cx.ports.disk.ensure_run_dir(cx.op, cx.vm.id).await?;
    // A VMM in a jail can write to files that it was given at its start, and to no others.
    cx.ports.disk.ensure_saving(cx.op, cx.vm.id, Size::from_bytes(0)).await?;
    Ok(cx.ports.disk.paths(cx.vm.id).run.display().to_string())
}

#[derive(Debug)]
struct MakeRunDir;

impl Step for MakeRunDir {
    fn name(&self) -> &'static str {
        "make-run-dir"
    }

    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![ResourceKind::RunDir]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        make_run_dir(cx).boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            cx.ports.disk.remove_saving(cx.op, cx.vm.id).await?;
            Ok(cx.ports.disk.remove_run_dir(cx.op, cx.vm.id).await?)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct WriteConfig;

impl Step for WriteConfig {
    fn name(&self) -> &'static str {
        "write-config"
    }

    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![ResourceKind::Config]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        write_config(cx).boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.disk.remove_config(cx.op, cx.vm.id).await?) }.boxed()
    }
}

/// Who the guest is, or, of one that is told later, only how it boots.
pub(super) async fn write_config(cx: &StepCx) -> Result<String, StepError> {
    let setup = guest_setup(cx).await?;
    let image = match cx.observed.origin() {
        Some(Origin::Leaves(..)) => cx.ports.guest.blank_drive(cx.op, &setup)?,
        _ => cx.ports.guest.config_drive(cx.op, &setup)?,
    };
    let bytes = image.len();
    cx.ports.disk.write_config(cx.op, cx.vm.id, image).await?;
    Ok(format!("{bytes} bytes"))
}

pub(super) async fn guest_setup(cx: &StepCx) -> Result<GuestSetup, StepError> {
    Ok(GuestSetup {
        record: cx.vm.as_ref().clone(),
        image: cx.image.as_deref().cloned(),
        subnet: cx.settings.subnet,
        dns: cx.settings.dns.clone(),
        base_uuid: cx.observed.boot()?.base.uuid,
        disks: cx.ports.disk.as_made(cx.vm.id, &disk_plan(&cx.vm)).await?,
        vmm: cx.observed.vmm()?,
    })
}

fn disk(path: PathBuf, read_only: bool) -> DiskAttachment {
    DiskAttachment { path, read_only }
}

/// What the guest's `/` is made of.
fn root_disks(
    cx: &StepCx,
    base: BaseImage,
    paths: &VmPaths,
) -> Result<Vec<DiskAttachment>, StepError> {
    Ok(match disk_plan(&cx.vm).root {
        RootPlan::Overlay { .. } => vec![disk(base.path, true), disk(paths.overlay(), false)],
        RootPlan::Reflink { .. } => vec![disk(paths.root(), false)],
        RootPlan::DmSnapshot { .. } => vec![disk(cx.observed.root_device()?, false)],
    })
}

/// From what the steps before found out.
pub(super) fn boot_plan(cx: &StepCx) -> Result<BootPlan, StepError> {
    let (vm, files) = (&cx.vm, cx.observed.boot()?);
    let paths = cx.ports.disk.paths(vm.id);
    Ok(BootPlan {
        resume: cx.observed.resumes(),
        memory_is_shared: matches!(cx.observed.origin(), Some(Origin::GoesOn(_))),
        vm: vm.id,
        name: vm.spec.name.to_string(),
        vcpu: vm.spec.vcpu,
        memory_mib: vm.spec.memory_mib,
        kernel: files.kernel,
        initrd: files.initrd,
        disks: root_disks(cx, files.base, &paths)?
            .into_iter()
            .chain([disk(paths.work(), false), disk(paths.config(), true)])
            .collect(),
        tap: cx.observed.tap()?,
        mac: vm.mac(),
        console: vm.spec.console,
        paths,
    })
}

pub(super) async fn spawn(cx: &StepCx) -> Result<ProcessIdentity, StepError> {
    let plan = boot_plan(cx)?;
    let command = cx.ports.hypervisor.command(cx.observed.vmm()?, &plan).await?;
    let log = match command.prints {
        LogKind::Serial => plan.paths.serial_log(),
        LogKind::Vmm => plan.paths.vmm_log(),
    };
    let request = SpawnRequest { vm: cx.vm.id, command, log };
    Ok(cx.ports.process.ensure_spawned(cx.op, &request).await?)
}

#[derive(Debug)]
struct SpawnVmm {
    /// With a snapshot to go on from, it also has the guest go on.
    first: bool,
}

impl Step for SpawnVmm {
    fn name(&self) -> &'static str {
        "spawn-vmm"
    }

    fn makes(&self, cx: &StepCx) -> Vec<ResourceKind> {
        let jailed = matches!(cx.observed.vmm(), Ok(VmmKind::Firecracker));
        let mut kinds = vec![ResourceKind::Process, ResourceKind::Cgroup];
        kinds.extend(jailed.then_some(ResourceKind::Jail));
        // Another's, which it goes on from and does not keep.
        kinds.extend(self.first.then_some(ResourceKind::Memory));
        kinds
    }

    fn frees(&self) -> &'static [ResourceKind] {
        if self.first { &[ResourceKind::Memory] } else { &[] }
    }

    fn limit(&self, settings: &Settings) -> Duration {
        3 * settings.step_limit // once, in vain, from a snapshot
    }

    /// The output is the process's identity: pid, start ticks, the host's boot id.
    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let process = match self.first {
                true => warm::spawn(cx).await?,
                false => spawn(cx).await?,
            };
            Ok(format!("{} {} {}", process.pid, process.start_ticks, process.host_boot_id))
        }
        .boxed()
    }

    fn recall(&self, cx: &StepCx, output: &str) {
        let mut words = output.splitn(3, ' ');
        let pid = words.next().and_then(|word| word.parse().ok());
        let start_ticks = words.next().and_then(|word| word.parse().ok());
        if let (Some(pid), Some(start_ticks), Some(boot)) = (pid, start_ticks, words.next()) {
            let host_boot_id = boot.to_owned();
            cx.observed.set_process(ProcessIdentity { pid, start_ticks, host_boot_id });
        }
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            cx.ports.process.ensure_gone(cx.op, cx.vm.id).await?;
            cx.observed.forget_process();
            if self.first {
                // Another's memory, which it was to go on from, or its own, which was to be kept.
                cx.ports.disk.remove_saved(cx.op, cx.vm.id).await?;
                cx.ports.disk.remove_saving(cx.op, cx.vm.id).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

#[derive(Debug)]
pub(super) struct PublishName;

impl Step for PublishName {
    fn name(&self) -> &'static str {
        "publish-name"
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            cx.ports.names.publish(cx.op, &cx.vm.spec.name, cx.vm.address).await?;
            Ok(format!("{}.vm", cx.vm.spec.name))
        }
        .boxed()
    }

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        async move { Ok(cx.ports.names.withdraw(cx.op, &cx.vm.spec.name, cx.vm.address).await?) }
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpKind;
    use crate::ops::harness::{Case, crashed, created, survives};

    survives!(start, Case::new(OpKind::StartVm, start_vm, created().await));
    survives!(start_slowly, Case::new(OpKind::StartVm, start_vm, created().await).slow_boot());
    survives!(
        start_after_a_crash,
        Case::new(OpKind::StartVm, start_after_clean_up, crashed().await)
    );
}
