//! The adapter itself: what [`super`] says, put together.

use std::path::PathBuf;

use tokio::sync::OnceCell;

use super::command::{Machine, TCG_CACHE_MIB, arguments};
use super::tsc::TscRate;
use super::{Accelerator, binary, qmp};
use crate::host::vmm::adapter::Adapter;
use crate::model::{OpId, Size};
use crate::ports::{BootPlan, HostError, PortFuture, VmPaths, VmmCommand, VmmDescription};

/// QEMU itself and its copy of the kernel: 63 MiB of its own before the guest's first instruction.
const OWN_MIB: u32 = 64;

#[derive(Debug)]
pub struct Qemu {
    configured: Option<PathBuf>,
    version: OnceCell<String>,
    tsc: TscRate,
}

impl Qemu {
    #[must_use]
    pub fn new(configured: Option<PathBuf>) -> Self {
        Self { configured, version: OnceCell::new(), tsc: TscRate::new() }
    }

    fn binary(&self) -> Result<PathBuf, HostError> {
        binary::find(self.configured.as_deref())
    }

    fn accelerator() -> Result<(Accelerator, String), HostError> {
        Accelerator::probe().map_err(|error| HostError::io("read", "/proc/cpuinfo", error))
    }
}

impl Adapter for Qemu {
    fn describe(&self) -> PortFuture<'_, VmmDescription> {
        Box::pin(async move {
            let binary = self.binary()?;
            let version = self.version.get_or_try_init(|| binary::version(&binary)).await?.clone();
            let (accelerator, why) = Self::accelerator()?;
            Ok(VmmDescription { kind: "qemu", version, accelerator: accelerator.as_str(), why })
        })
    }

    fn command<'a>(&'a self, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        Box::pin(async move {
            let (accelerator, _) = Self::accelerator()?;
            let machine = Machine { accelerator, tsc_khz: self.tsc.khz().await };
            Ok(VmmCommand { program: self.binary()?, args: arguments(plan, machine)? })
        })
    }

    fn await_running<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(qmp::await_running(op, paths.api_socket()))
    }

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(qmp::power_button(op, paths.api_socket()))
    }

    fn overhead(&self) -> Size {
        // Translated code is counted in full, though most guests fill less: the budget must hold
        // when they do.
        match Self::accelerator() {
            Ok((Accelerator::Kvm, _)) => Size::from_mib(OWN_MIB),
            _ => Size::from_mib(OWN_MIB + TCG_CACHE_MIB),
        }
    }
}
