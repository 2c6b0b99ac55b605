//! A VMM that runs nothing. Its command line names what it would need.

use futures::FutureExt;

use super::state::State;
use super::world::VERSION;
use super::{SimMemory, SimWorld};
use crate::model::{Code, DeviceCounters, OpId, SavedBy, Size, VmId, VmmChoice, VmmKind};
use crate::ports::{
    BootPlan, HostError, Hypervisor, LogKind, PortFuture, VmPaths, VmmCommand, VmmDescription,
    VmmLimits,
};

impl Hypervisor for SimWorld {
    fn describe(&self, choice: VmmChoice) -> PortFuture<'_, VmmDescription> {
        let describe = move |_: &mut _| {
            check(choice)?;
            Ok(VmmDescription {
                kind: VmmKind::Sim,
                version: VERSION.to_owned(),
                accelerator: "none",
                why: "the host is simulated".to_owned(),
                warning: None,
            })
        };
        self.call("hypervisor.describe", describe).boxed()
    }

    fn command<'a>(&'a self, kind: VmmKind, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        let command = move |_: &mut _| {
            own(kind)?;
            let args = vec![format!("vm={}", plan.vm), format!("tap={}", plan.tap)];
            let limits = VmmLimits { memory: Size::from_mib(16), cpus: 1, tasks: 16 };
            let program = "/sim/vmm".into();
            Ok(VmmCommand { program, args, prints: LogKind::Vmm, limits, jail: None })
        };
        self.call("hypervisor.command", command).boxed()
    }

    fn boot<'a>(&'a self, _op: OpId, kind: VmmKind, plan: &'a BootPlan) -> PortFuture<'a, ()> {
        async move {
            self.call("hypervisor.boot", move |_| own(kind)).await?;
            self.until(plan.vm, |state| state.running(plan.vm).map(drop)).await;
            if plan.resume {
                self.lock().load(plan.vm)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn power_button<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            let press = |state: &mut State| {
                let refused = |code| HostError::new(code, "press power button of VM", vm.short());
                if state.world.stopped.contains(&vm) {
                    return Err(refused(Code::Deadline));
                }
                let ended = state.end_process(vm, "exit status 0");
                ended.map(drop).ok_or_else(|| refused(Code::NotFound))
            };
            self.call("hypervisor.power_button", press).await
        }
        .boxed()
    }

    fn pause<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.call_set_paused("hypervisor.pause", paths, true).boxed()
    }

    fn unpause<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.call_set_paused("hypervisor.unpause", paths, false).boxed()
    }

    fn halted_by_disk<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, bool> {
        async move {
            let vm = self.vm_of(paths)?;
            let halted = |state: &mut State| Ok(state.world.halted.contains(&vm));
            self.call("hypervisor.halted_by_disk", halted).await
        }
        .boxed()
    }

    fn counters<'a>(
        &'a self,
        _op: OpId,
        paths: &'a VmPaths,
    ) -> PortFuture<'a, Option<DeviceCounters>> {
        async move {
            let vm = self.vm_of(paths)?;
            let count = move |state: &mut super::state::State| {
                let counted = DeviceCounters {
                    net_in_bytes: 4200,
                    net_out_bytes: 2100,
                    net_in_packets: 42,
                    net_out_packets: 21,
                    disk_read_bytes: 32 << 20,
                    disk_written_bytes: 1 << 20,
                    disk_reads: 800,
                    disk_writes: 40,
                    disk_flushes: 4,
                    vsock_in_bytes: 100,
                    vsock_out_bytes: 200,
                };
                Ok(state.running(vm).map(|_| counted))
            };
            self.call("hypervisor.counters", count).await
        }
        .boxed()
    }

    fn save<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, SavedBy> {
        async move {
            let vm = self.vm_of(paths)?;
            self.call("hypervisor.save", |state| state.save(vm)).await?;
            let (version, accelerator) = (VERSION.to_owned(), "none".to_owned());
            Ok(SavedBy { kind: VmmKind::Sim, version, accelerator })
        }
        .boxed()
    }

    fn overhead(&self) -> Size {
        Size::from_mib(1)
    }
}

fn check(choice: VmmChoice) -> Result<(), HostError> {
    if choice == VmmChoice::Firecracker {
        let error = HostError::new(Code::VmmMissing, "find VMM", "firecracker");
        return Err(error.because("the simulated host has no Firecracker"));
    }
    Ok(())
}

fn own(kind: VmmKind) -> Result<(), HostError> {
    match kind {
        VmmKind::Sim => Ok(()),
        other => {
            let error = HostError::new(Code::Invalid, "use VMM", other.as_str());
            Err(error.because("the host is simulated"))
        }
    }
}

impl State {
    fn save(&mut self, vm: VmId) -> Result<(), HostError> {
        let refused = |why| HostError::new(Code::NotFound, "save VM", vm.short()).because(why);
        let process =
            self.world.processes.get_mut(&vm).ok_or_else(|| refused("it does not run"))?;
        process.paused = true;
        if self.world.memory.get(&vm).is_some_and(|memory| memory.kept) {
            return Err(refused("another memory of it is kept"));
        }
        let memory = SimMemory { kept: false, boot: process.boot, version: VERSION.to_owned() };
        self.world.memory.insert(vm, memory);
        Ok(())
    }

    /// What is loaded already stays as it is.
    fn load(&mut self, vm: VmId) -> Result<(), HostError> {
        let refused = |why| HostError::new(Code::NotFound, "load VM", vm.short()).because(why);
        let memory = self.world.memory.get(&vm).filter(|memory| memory.kept);
        let memory = memory.ok_or_else(|| refused("no memory of it is kept"))?;
        let process =
            self.world.processes.get_mut(&vm).ok_or_else(|| refused("it does not run"))?;
        (process.paused, process.boot) = (true, memory.boot);
        if self.blank_memory.remove(&vm) {
            process.guest = None;
        }
        Ok(())
    }
}

impl SimWorld {
    async fn call_set_paused(
        &self,
        name: &'static str,
        paths: &VmPaths,
        paused: bool,
    ) -> Result<(), HostError> {
        let vm = self.vm_of(paths)?;
        let set = |state: &mut State| {
            if !paused && state.world.memory.get(&vm).is_some_and(|memory| memory.kept) {
                let refused = HostError::new(Code::Internal, "let VM go on", vm.short());
                return Err(refused.because("its memory is kept, and would be read again"));
            }
            if !paused {
                state.world.halted.remove(&vm);
            }
            let process = state.world.processes.get_mut(&vm);
            let gone = || HostError::new(Code::NotFound, "pause VM", vm.short());
            process.map(|process| process.paused = paused).ok_or_else(gone)
        };
        self.call(name, set).await
    }

    /// Paths are all that such a call is given; the directory is named after the VM.
    pub(super) fn vm_of(&self, paths: &VmPaths) -> Result<VmId, HostError> {
        let name = paths.dir.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.parse().ok());
        id.ok_or_else(|| {
            HostError::new(Code::Invalid, "find VM of", paths.dir.display().to_string())
        })
    }
}
