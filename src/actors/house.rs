//! All the actors, as those see them who serve clients.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::dns::DnsHandle;
use super::envelope::{CallError, OpCtx};
use super::handle::Handle;
use super::images::ImagesActor;
use super::inventory::Inventory;
use super::janitor::JanitorActor;
use super::mint::Mint;
use super::supervisor::{FindVm, Found, SupervisorActor};
use super::tap_pool::TapPoolHandle;
use crate::config::Config;
use crate::model::{OpId, VmId};
use crate::ports::Ports;
use crate::store::Store;
use crate::wire::reply::CheckInfo;

/// How long an actor may take to answer; operations are not answers.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Runs the doctor's checks; they look at the host, so the composition root supplies them.
pub type Checks = Arc<dyn Fn(OpId) -> BoxFuture<'static, Vec<CheckInfo>> + Send + Sync>;

/// Cheap to clone; every session has one.
#[derive(Clone)]
pub struct House {
    pub config: Arc<Config>,
    pub store: Store,
    pub ports: Ports,
    pub mint: Mint,
    pub supervisor: Handle<SupervisorActor>,
    pub images: Handle<ImagesActor>,
    pub taps: TapPoolHandle,
    pub dns: DnsHandle,
    pub inventory: Inventory,
    pub janitor: Handle<JanitorActor>,
    pub checks: Checks,
    pub started_unix_ms: u64,
    pub owner_uid: u32,
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").field("config", &self.config).finish_non_exhaustive()
    }
}

impl House {
    #[must_use]
    pub fn ctx(&self, op_id: OpId) -> OpCtx {
        OpCtx::within(op_id, CALL_LIMIT)
    }

    pub async fn find(&self, op_id: OpId, vm: &str) -> Result<Found, CallError> {
        self.supervisor.call(self.ctx(op_id), FindVm(vm.to_owned())).await
    }

    /// Whether the store still knows the VM.
    #[must_use]
    pub fn exists(&self, vm: VmId) -> bool {
        self.store.has_vm(vm)
    }
}
