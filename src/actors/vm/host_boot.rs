//! Whether the host was restarted since a daemon last ran on it, and what that makes untrue.
//!
//! ```text
//! compare ──new──> forget what VMs had on the host ──> recovery ──> keep the boot's id
//! ```
//!
//! The id is kept last: a daemon that dies in between finds the boot new again, and whatever it had
//! done bears being done twice.

use std::sync::Arc;

use super::VmDeps;
use crate::model::{VmHandles, chain};
use crate::store::StoreError;

const FACT: &str = "host-boot-id";

/// What `last_exit` says of a VM that was on.
pub(super) const HOW: &str = "the host was restarted";

#[derive(Debug)]
pub(super) struct HostBoot {
    /// None: it cannot be read, and nothing is concluded from that.
    id: Option<String>,
    pub(super) is_new: bool,
}

impl HostBoot {
    /// A store that knows of no boot yet is taken for one of this boot: what it says of processes is
    /// compared with them anyway.
    pub(super) fn compare(deps: &VmDeps) -> Result<Self, StoreError> {
        let last = deps.store.fact(FACT)?;
        let id = deps.ports.process.host_boot_id();
        let id = id.inspect_err(|error| {
            tracing::error!(error = %chain(error), "boot of the host not known");
        });
        let id = id.ok();
        let is_new = matches!((&last, &id), (Some(last), Some(id)) if last != id);
        if is_new {
            tracing::warn!(?last, now = ?id, "the host was restarted");
        }
        Ok(Self { id, is_new })
    }

    /// Takes from all VMs what was theirs on the host before its restart. Which VMM ran one stays: it
    /// tells that files of that run are left, and who can read a memory that was saved.
    pub(super) async fn forget_the_last(&self, deps: &Arc<VmDeps>) -> Result<(), StoreError> {
        if !self.is_new {
            return Ok(());
        }
        for vm in deps.store.vms()? {
            if let Some(VmHandles { vmm, .. }) = deps.store.handles(vm.id)? {
                let kept = VmHandles { vmm, ..VmHandles::default() };
                deps.store.put_handles(vm.id, kept).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn keep(self, deps: &VmDeps) -> Result<(), StoreError> {
        match self.id {
            Some(id) => deps.store.set_fact(FACT, id).await,
            None => Ok(()),
        }
    }
}
