//! A VMM that runs nothing. Its command line names what it would need.

use futures::FutureExt;

use super::SimWorld;
use crate::model::{Code, OpId, Size, VmId, VmmChoice};
use crate::ports::{
    BootPlan, HostError, Hypervisor, PortFuture, VmPaths, VmmCommand, VmmDescription,
};

impl Hypervisor for SimWorld {
    fn describe(&self, choice: VmmChoice) -> PortFuture<'_, VmmDescription> {
        let describe = move |_: &mut _| {
            check(choice)?;
            Ok(VmmDescription {
                kind: "sim",
                version: "1".to_owned(),
                accelerator: "none",
                why: "the host is simulated".to_owned(),
            })
        };
        self.call("hypervisor.describe", describe).boxed()
    }

    fn command<'a>(&'a self, choice: VmmChoice, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        let command = move |_: &mut _| {
            check(choice)?;
            let args = vec![format!("vm={}", plan.vm), format!("tap={}", plan.tap)];
            Ok(VmmCommand { program: "/sim/vmm".into(), args })
        };
        self.call("hypervisor.command", command).boxed()
    }

    fn await_running<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            self.call("hypervisor.await_running", |_| Ok(())).await?;
            self.until(vm, |state| state.running(vm).map(drop)).await;
            Ok(())
        }
        .boxed()
    }

    fn power_button<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            let press = |state: &mut super::state::State| {
                let ended = state.end_process(vm, "exit status 0");
                let gone =
                    || HostError::new(Code::NotFound, "press power button of VM", vm.short());
                ended.map(drop).ok_or_else(gone)
            };
            self.call("hypervisor.power_button", press).await
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

impl SimWorld {
    /// Paths are all that such a call is given; the directory is named after the VM.
    pub(super) fn vm_of(&self, paths: &VmPaths) -> Result<VmId, HostError> {
        let name = paths.dir.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.parse().ok());
        id.ok_or_else(|| {
            HostError::new(Code::Invalid, "find VM of", paths.dir.display().to_string())
        })
    }
}
