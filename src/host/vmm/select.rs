//! The Hypervisor port: finds the adapter for a choice, and for a VM that runs.

use std::path::PathBuf;

use super::accel::Accelerator;
use super::adapter::Adapter;
use super::firecracker::Firecracker;
use super::permit::Permits;
use super::qemu::Qemu;
use crate::host::helper_client::HelperClient;
use crate::model::{Code, DeviceCounters, OpId, SavedBy, Size, VmmChoice, VmmKind, chain};
use crate::ports::{
    BootPlan, HostError, Hypervisor, PortFuture, VmPaths, VmmCommand, VmmDescription,
};

#[derive(Clone, Debug, Default)]
pub struct VmmConfig {
    /// Instead of the `qemu-system-x86_64` that PATH finds.
    pub qemu_bin: Option<PathBuf>,
    /// Instead of the `firecracker` that PATH finds.
    pub firecracker_bin: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Vmms {
    qemu: Qemu,
    firecracker: Firecracker,
}

impl Vmms {
    #[must_use]
    pub fn new(config: VmmConfig, helper: HelperClient) -> Self {
        Self {
            qemu: Qemu::new(config.qemu_bin),
            firecracker: Firecracker::new(config.firecracker_bin, Permits::Of(helper)),
        }
    }

    fn adapter(&self, kind: VmmKind) -> Result<&dyn Adapter, HostError> {
        match kind {
            VmmKind::Qemu => Ok(&self.qemu),
            VmmKind::Firecracker => Ok(&self.firecracker),
            VmmKind::Sim => Err(HostError::new(Code::Invalid, "use VMM", kind.as_str())
                .because("the host is not simulated")),
        }
    }

    /// Firecracker where hardware virtualisation can be used, else QEMU, which says why.
    async fn best(&self) -> Result<VmmDescription, HostError> {
        if Accelerator::probe()?.0 == Accelerator::Tcg {
            return self.qemu.describe().await;
        }
        let refused = match self.firecracker.describe().await {
            Ok(description) => return Ok(description),
            // It is about to be there again; a VM must not change its VMM for that.
            Err(error) if error.code == Code::HelperUnreachable => return Err(error),
            Err(error) => error,
        };
        let qemu = self.qemu.describe().await?;
        // Where Firecracker is simply not installed, nothing is wrong.
        let found = self.firecracker.is_installed();
        Ok(VmmDescription {
            why: format!("{}; not firecracker: {}", qemu.why, chain(&refused)),
            warning: found.then(|| chain(&refused)).or(qemu.warning),
            ..qemu
        })
    }

    /// The adapter that runs a VM which exists, by the API that it serves.
    fn running(&self, paths: &VmPaths) -> &dyn Adapter {
        if paths.firecracker_socket().exists() { &self.firecracker } else { &self.qemu }
    }
}

impl Hypervisor for Vmms {
    fn describe(&self, choice: VmmChoice) -> PortFuture<'_, VmmDescription> {
        match choice {
            VmmChoice::Auto => Box::pin(self.best()),
            VmmChoice::Qemu => self.qemu.describe(),
            VmmChoice::Firecracker => self.firecracker.describe(),
        }
    }

    fn command<'a>(&'a self, kind: VmmKind, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        Box::pin(async move { self.adapter(kind)?.command(plan).await })
    }

    fn boot<'a>(&'a self, op: OpId, kind: VmmKind, plan: &'a BootPlan) -> PortFuture<'a, ()> {
        Box::pin(async move { self.adapter(kind)?.boot(op, plan).await })
    }

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.running(paths).power_button(op, paths)
    }

    fn pause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.running(paths).pause(op, paths)
    }

    fn unpause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        self.running(paths).unpause(op, paths)
    }

    fn halted_by_disk<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, bool> {
        self.running(paths).halted_by_disk(op, paths)
    }

    fn counters<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
    ) -> PortFuture<'a, Option<DeviceCounters>> {
        self.running(paths).counters(op, paths)
    }

    fn save<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, SavedBy> {
        self.running(paths).save(op, paths)
    }

    fn overhead(&self) -> Size {
        // Any VM may ask for either.
        self.qemu.overhead().max(self.firecracker.overhead())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VmId;

    #[tokio::test]
    async fn a_missing_binary_is_named_with_where_to_get_it() {
        let config = VmmConfig {
            qemu_bin: Some("/nonexistent/qemu-system-x86_64".into()),
            firecracker_bin: Some("/nonexistent/firecracker".into()),
        };
        let vmms = Vmms::new(config, HelperClient::new("/nonexistent/helper.sock".into()));
        for (choice, name, hint) in [
            (VmmChoice::Auto, "qemu-system-x86_64", "apt install qemu-system-x86"),
            (VmmChoice::Qemu, "qemu-system-x86_64", "apt install qemu-system-x86"),
            (VmmChoice::Firecracker, "firecracker", "firecracker_bin"),
        ] {
            let error = vmms.describe(choice).await.unwrap_err();
            assert_eq!(error.code, Code::VmmMissing);
            assert!(chain(&error).contains(&format!("/nonexistent/{name}")), "{error:?}");
            assert!(error.hints.iter().any(|said| said.contains(hint)), "{:?}", error.hints);
        }
    }

    #[test]
    fn a_vm_that_runs_is_told_by_the_api_in_its_run_directory() {
        let vmms =
            Vmms::new(VmmConfig::default(), HelperClient::new("/nonexistent/helper.sock".into()));
        let dir = tempfile::tempdir().unwrap();
        let paths = VmPaths::new(dir.path(), dir.path(), VmId([1; 16]));
        std::fs::create_dir_all(paths.sockets()).unwrap();
        let kind = |vmms: &Vmms| format!("{:?}", vmms.running(&paths));
        assert!(kind(&vmms).starts_with("Qemu"));
        std::fs::write(paths.firecracker_socket(), "").unwrap();
        assert!(kind(&vmms).starts_with("Firecracker"));
    }
}
