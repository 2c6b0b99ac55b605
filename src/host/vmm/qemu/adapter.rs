//! The adapter itself: what [`super`] says, put together.

use std::path::PathBuf;

use tokio::sync::OnceCell;

use super::command::{Machine, TCG_CACHE_MIB, arguments};
use super::tsc::TscRate;
use super::version::{QEMU, parse};
use super::{memory, qmp};
use crate::host::vmm::accel::Accelerator;
use crate::host::vmm::adapter::{Adapter, limits};
use crate::model::{Code, OpId, SavedBy, Size, VmmKind};
use crate::ports::{BootPlan, HostError, LogKind, PortFuture, VmPaths, VmmCommand, VmmDescription};

/// QEMU itself and its copy of the kernel: 63 MiB of its own before the guest's first instruction.
const OWN_MIB: u32 = 64;

/// Besides its vCPUs': its pool for disk I/O grows to 64.
const THREADS: u32 = 128;

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
        QEMU.find(self.configured.as_deref())
    }
}

impl Adapter for Qemu {
    fn describe(&self) -> PortFuture<'_, VmmDescription> {
        Box::pin(async move {
            if !cfg!(target_arch = "x86_64") {
                return Err(HostError::new(Code::VmmMissing, "use VMM", "qemu")
                    .because("its machine microvm is one of x86-64 only")
                    .hint("install firecracker, and see that /dev/kvm opens"));
            }
            let binary = self.binary()?;
            let asked = self.version.get_or_try_init(|| QEMU.version(&binary, parse));
            let version = asked.await?.clone();
            let (accelerator, why) = Accelerator::probe()?;
            let accelerator = accelerator.as_str();
            Ok(VmmDescription { kind: VmmKind::Qemu, version, accelerator, why, warning: None })
        })
    }

    fn command<'a>(&'a self, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        Box::pin(async move {
            let (accelerator, _) = Accelerator::probe()?;
            let machine = Machine { accelerator, tsc_khz: self.tsc.khz().await };
            let limits = limits(plan, self.overhead(), THREADS);
            let (program, args) = (self.binary()?, arguments(plan, machine)?);
            // Its guest's console is a file of its own.
            Ok(VmmCommand { program, args, prints: LogKind::Vmm, limits, jail: None })
        })
    }

    fn boot<'a>(&'a self, op: OpId, plan: &'a BootPlan) -> PortFuture<'a, ()> {
        Box::pin(async move {
            if plan.resume {
                return memory::load(op, &plan.paths).await;
            }
            qmp::await_running(op, plan.paths.api_socket()).await
        })
    }

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(qmp::power_button(op, paths.api_socket()))
    }

    fn pause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(qmp::pause(op, paths.api_socket()))
    }

    fn unpause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(memory::unpause(op, paths))
    }

    fn halted_by_disk<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, bool> {
        Box::pin(qmp::is_halted_by_disk(op, paths.api_socket()))
    }

    fn save<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, SavedBy> {
        Box::pin(memory::save(op, paths))
    }

    fn overhead(&self) -> Size {
        // Translated code is counted in full, though most guests fill less: the budget must hold
        // when they do.
        match Accelerator::probe() {
            Ok((Accelerator::Kvm, _)) => Size::from_mib(OWN_MIB),
            _ => Size::from_mib(OWN_MIB + TCG_CACHE_MIB),
        }
    }
}
