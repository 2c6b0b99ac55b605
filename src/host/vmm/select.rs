//! The Hypervisor port: finds the adapter for a choice, and refuses the others by name.

use std::path::PathBuf;

use super::adapter::Adapter;
use super::qemu::Qemu;
use crate::model::{Code, OpId, Size, VmmChoice};
use crate::ports::{
    BootPlan, HostError, Hypervisor, PortFuture, VmPaths, VmmCommand, VmmDescription,
};

#[derive(Clone, Debug, Default)]
pub struct VmmConfig {
    /// Instead of the `qemu-system-x86_64` that PATH finds.
    pub qemu_bin: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Vmms {
    qemu: Qemu,
}

impl Vmms {
    #[must_use]
    pub fn new(config: VmmConfig) -> Self {
        Self { qemu: Qemu::new(config.qemu_bin) }
    }

    fn adapter(&self, choice: VmmChoice) -> Result<&dyn Adapter, HostError> {
        match choice {
            VmmChoice::Auto | VmmChoice::Qemu => Ok(&self.qemu),
            VmmChoice::Firecracker => {
                Err(HostError::new(Code::Refused, "choose VMM", "firecracker")
                    .because("firecracker is not supported by this build")
                    .hint("choose qemu, or auto, which takes what this host has"))
            }
        }
    }

    /// The adapter that runs a VM which exists. There is one so far; a second one is told apart by
    /// the API socket it serves.
    fn running(&self) -> &dyn Adapter {
        &self.qemu
    }
}

impl Hypervisor for Vmms {
    fn describe(&self, choice: VmmChoice) -> PortFuture<'_, VmmDescription> {
        Box::pin(async move { self.adapter(choice)?.describe().await })
    }

    fn command<'a>(&'a self, choice: VmmChoice, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        Box::pin(async move { self.adapter(choice)?.command(plan).await })
    }

    fn await_running<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.running().await_running(op, paths)
    }

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.running().power_button(op, paths)
    }

    fn overhead(&self) -> Size {
        self.running().overhead()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain;

    #[tokio::test]
    async fn firecracker_is_refused_by_name() {
        let vmms = Vmms::new(VmmConfig::default());
        let error = vmms.describe(VmmChoice::Firecracker).await.unwrap_err();
        assert_eq!(error.code, Code::Refused);
        assert_eq!(
            chain(&error),
            "choose VMM firecracker: firecracker is not supported by this build"
        );
    }

    #[tokio::test]
    async fn a_missing_binary_is_named_with_its_package() {
        let missing = PathBuf::from("/nonexistent/qemu-system-x86_64");
        let vmms = Vmms::new(VmmConfig { qemu_bin: Some(missing) });
        let error = vmms.describe(VmmChoice::Auto).await.unwrap_err();
        assert_eq!(error.code, Code::VmmMissing);
        assert!(chain(&error).contains("/nonexistent/qemu-system-x86_64"), "{error:?}");
        assert!(error.hints.iter().any(|hint| hint.contains("apt install qemu-system-x86")));
    }
}
