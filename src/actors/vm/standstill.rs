//! A guest that its VMM has halted because the host could not write its disk, as QEMU does when the
//! host's file system is full: told, and let go on once there is room again. Nothing is lost then, for
//! the write is tried again.
//!
//! Its VMM is asked only while the guest does not answer: one that is well costs nothing.

use std::time::Duration;

use super::conditions::Observe;
use super::gauge::HOST_RESERVE;
use crate::model::{ConditionKind, Finding, OpId, VmId, VmView, chain};
use crate::ports::{HostError, Ports};

/// For a guest to take note of the time.
const TELL_LIMIT: Duration = Duration::from_secs(2);

/// What was told of one running VM.
#[derive(Debug)]
pub(super) struct Standstill {
    told: bool,
}

impl Standstill {
    /// An earlier watch may have told it.
    pub(super) fn new(view: &VmView) -> Self {
        Self { told: view.conditions.iter().any(|seen| seen.kind == ConditionKind::HostFull) }
    }

    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Asks the VMM, and answers with what is new. A guest that was let go on is told to have done so
    /// only when it is found running: it may be halted again by the same write.
    pub(super) async fn look(&mut self, op: OpId, vm: VmId, ports: &Ports) -> Option<Observe> {
        let look = async {
            let halted = ports.hypervisor.halted_by_disk(op, &ports.disk.paths(vm)).await?;
            let free = ports.disk.free().await?;
            if halted && free >= HOST_RESERVE {
                let_go_on(op, vm, ports).await?;
            }
            Ok::<_, HostError>(halted.then_some(free))
        };
        let halted = match look.await {
            Ok(halted) => halted,
            Err(error) => {
                tracing::warn!(vm_id = %vm, error = %chain(&error), "vmm not asked why its guest is silent");
                return None;
            }
        };
        if halted.is_some() == self.told {
            return None;
        }
        self.told = halted.is_some();
        let found = halted.map(|free| Finding {
            reason: format!("the host could not write its disk; its file system has {free} left"),
            exit: format!("it goes on by itself when the host has {HOST_RESERVE} free"),
        });
        Some(Observe { kind: ConditionKind::HostFull, found })
    }
}

/// Its clock stood still with it, and is set. A guest that does not take note of that goes on all the same.
pub(super) async fn let_go_on(op: OpId, vm: VmId, ports: &Ports) -> Result<(), HostError> {
    let paths = ports.disk.paths(vm);
    ports.hypervisor.unpause(op, &paths).await?;
    let told = ports.guest.set_clock(op, &paths, ports.clock.unix_ms());
    match tokio::time::timeout(TELL_LIMIT, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(vm_id = %vm, error = %chain(&error), "clock not set"),
        Err(_) => tracing::warn!(vm_id = %vm, "clock not set: no answer"),
    }
    Ok(())
}
