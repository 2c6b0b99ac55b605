//! What happens to VMs and operations between the start of the daemon and its first request.
//!
//! 1. If the host was restarted, nothing that VMs had on it is believed any more.
//! 2. Operations that were cut short are taken back or carried on, as their journals say.
//! 3. Each VM that should run is compared with its process: found again, or declared crashed, or
//!    stopped by the host's restart.
//!
//! Nothing is guessed and nobody is answered before all is done.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::host_boot::{self, HostBoot};
use super::op::{Op, Unsettled};
use super::{Changes, Ended, OpRequest, VmDeps, upkeep};
use crate::model::{
    Code, EventKind, Exit, ExitReport, Failure, OpKind, OpRecord, Outcome, ResourceKind, TapName,
    VmHandles, VmId, VmRecord, VmState,
};
use crate::store::StoreError;

/// So many VMs are compared with their processes at one time.
const AT_ONCE: usize = 64;

/// Which tap is whose, read once for all.
type Leases = HashMap<VmId, TapName>;

/// Settles everything and answers with the VMs that there are.
pub async fn recover(deps: &Arc<VmDeps>) -> Result<Vec<(VmRecord, VmHandles)>, StoreError> {
    let boot = HostBoot::compare(deps)?;
    boot.forget_the_last(deps).await?;
    for op in deps.store.open_ops()? {
        settle_open(deps, op).await?;
    }
    let leases = deps.store.taps()?.into_iter();
    let leases: Leases = leases.filter_map(|lease| Some((lease.vm?, lease.tap))).collect();
    let mut compared = vec![];
    for record in deps.store.vms()? {
        let handles = deps.store.handles(record.id)?.unwrap_or_default();
        compared.push(identify(deps, record, handles, &leases, boot.is_new));
    }
    // The helper answers one at a time; what is written for those that are lost is one commit.
    let compared = futures::stream::iter(compared).buffered(AT_ONCE);
    let known: Vec<_> = compared.try_collect().await?;
    close_roots(deps, &known).await;
    boot.keep(deps).await?;
    Ok(known)
}

/// Takes away root disks that nobody runs on: those of VMs that are gone altogether, and those that
/// a crash left open. A VM that crashed has a clean-up of its own.
async fn close_roots(deps: &Arc<VmDeps>, known: &[(VmRecord, VmHandles)]) {
    let (op, disk) = (deps.mint.op(), &deps.ports.disk);
    let open = match disk.open_roots(op).await {
        Ok(open) => open,
        Err(error) => {
            tracing::warn!(error = %crate::model::chain(&error), "open root disks not looked up");
            return;
        }
    };
    let in_use = |vm: VmId| {
        known.iter().any(|(record, handles)| record.id == vm && handles.process.is_some())
    };
    for vm in open.into_iter().filter(|vm| !in_use(*vm)) {
        tracing::warn!(vm_id = %vm, "root disk was left open");
        if let Err(error) = disk.close_root(op, vm).await {
            tracing::error!(vm_id = %vm, error = %crate::model::chain(&error), "root disk not closed");
        }
    }
}

async fn settle_open(deps: &Arc<VmDeps>, op: OpRecord) -> Result<(), StoreError> {
    let record = match op.vm {
        Some(vm) => deps.store.vm(vm)?,
        None => None,
    };
    let (Some(record), Some(request)) = (record, request_of(op.kind)) else {
        // Work on images leaves nothing but files without a row, which the sweep takes.
        let (step, cause) = ("start".to_owned(), crate::model::CUT_SHORT.to_owned());
        let now = deps.ports.clock.unix_ms();
        return deps.store.settle(op.id, Outcome::RolledBack { step, cause }, now).await;
    };
    let handles = deps.store.handles(record.id)?.unwrap_or_default();
    let closing = CancellationToken::new();
    match cut_short(deps, &op, request, record, handles, closing).recover().await {
        Ok(ended) => {
            let outcome = ended.op.outcome;
            tracing::info!(op_id = %op.id, ?outcome, "operation settled");
        }
        Err(why) => {
            tracing::error!(op_id = %op.id, ?why, "operation not settled; the next start tries again");
        }
    }
    Ok(())
}

/// Of this daemon's own, which it could not write down to the end.
pub(super) async fn settle_anew(of: &Op) -> Result<Ended, Unsettled> {
    let (deps, store) = (&of.deps, &of.deps.store);
    let unread = |error: StoreError| {
        tracing::error!(error = %crate::model::chain(&error), "store not read");
        Unsettled::NotWritten
    };
    let op = store.op(of.op_id).map_err(unread)?.ok_or(Unsettled::Senseless)?;
    let record = store.vm(of.record.id).map_err(unread)?;
    let handles = store.handles(of.record.id).map_err(unread)?.unwrap_or_default();
    match (record, request_of(op.kind)) {
        // It was written after all.
        (record, _) if op.outcome.is_some() => {
            let failure = record.as_ref().and_then(|record| record.last_failure.clone());
            let view = record.map(|record| of.view(record, handles));
            Ok(Ended { op, failure, view })
        }
        (Some(record), Some(request)) => {
            let anew = cut_short(deps, &op, request, record, handles, of.closing.clone());
            Op { generation: of.generation, ..anew }.recover().await
        }
        (None, _) | (_, None) => Err(Unsettled::Senseless),
    }
}

fn cut_short(
    deps: &Arc<VmDeps>,
    op: &OpRecord,
    request: OpRequest,
    record: VmRecord,
    handles: VmHandles,
    closing: CancellationToken,
) -> Op {
    tracing::info!(op_id = %op.id, vm_id = %record.id, kind = op.kind.as_str(), "operation was cut short");
    Op {
        op_id: op.id,
        request,
        request_hash: op.request_hash,
        by: upkeep::asker_of_what_was_cut_short(&record),
        record,
        handles,
        generation: 0,
        cancel: CancellationToken::new(),
        closing,
        deps: Arc::clone(deps),
        leftovers: true,
    }
}

/// The request that a record stands for. What only the request knew (how long to wait for a guest)
/// is of no use after a crash.
fn request_of(kind: OpKind) -> Option<OpRequest> {
    let grace = std::time::Duration::ZERO;
    Some(match kind {
        // Whether it went on to start the VM is in its journal; a VM left whole is merely created.
        OpKind::CreateVm => OpRequest::Create { start: false },
        OpKind::StartVm => OpRequest::Start,
        OpKind::StopVm => OpRequest::Stop { grace },
        OpKind::KillVm => OpRequest::Kill { signal: 9 },
        OpKind::RestartVm => OpRequest::Restart { grace },
        OpKind::DeleteVm => OpRequest::Delete,
        OpKind::CleanUpVm => OpRequest::CleanUp,
        OpKind::SuspendVm => OpRequest::Suspend,
        OpKind::ResumeVm => OpRequest::Resume,
        // The record says what it is to be.
        OpKind::SetVm => OpRequest::Set(Changes::default()),
        // Which it was is in its journal.
        OpKind::CollectVm => OpRequest::Collect(ResourceKind::Leftover),
        OpKind::RecoverVm => OpRequest::Recover,
        OpKind::BuildImage
        | OpKind::ImportImage
        | OpKind::DeleteImage
        | OpKind::ImportKernel
        | OpKind::DeleteKernel
        | OpKind::TagImage
        | OpKind::CommitVm
        | OpKind::CollectGarbage
        | OpKind::EmptyCache
        | OpKind::PullImage
        | OpKind::PullKernel => return None,
    })
}

async fn identify(
    deps: &Arc<VmDeps>,
    mut record: VmRecord,
    mut handles: VmHandles,
    leases: &Leases,
    host_restarted: bool,
) -> Result<(VmRecord, VmHandles), StoreError> {
    let (vm, op) = (record.id, deps.mint.op());
    let alive = match deps.ports.process.find(op, vm).await {
        Ok(found) => found,
        // The helper is away. The kernel itself can still say whether the process lives.
        Err(error) => {
            tracing::warn!(vm_id = %vm, error = %crate::model::chain(&error), "process not looked up");
            handles.process.clone().filter(|process| deps.ports.process.is_alive(process))
        }
    };
    let name = record.spec.name.to_string();
    match (record.state, alive) {
        (VmState::Running, Some(process)) => {
            tracing::info!(vm_id = %vm, name, pid = process.pid, "vm adopted");
            let known = handles.clone();
            handles.process = Some(process);
            handles.tap = leases.get(&vm).cloned();
            // Of a thousand VMs that all run on, none costs a commit.
            if handles != known {
                deps.store.put_handles(vm, handles.clone()).await?;
            }
        }
        (VmState::Running | VmState::Starting | VmState::Stopping | VmState::Suspending, None) => {
            let unix_ms = deps.ports.clock.unix_ms();
            let how = if host_restarted {
                tracing::warn!(vm_id = %vm, name, "vm was on when the host was restarted");
                record.state = VmState::Stopped;
                upkeep::host_restarted(&mut record, true, unix_ms);
                host_boot::HOW
            } else {
                tracing::warn!(vm_id = %vm, name, "vm lost: its process is gone");
                let console = deps.ports.disk.console_tail(vm, 20).await.unwrap_or_default();
                let failure = Failure::new(Code::GuestDied, format!("the VMM of {name} is gone"))
                    .hint(format!("`banger vm logs {name}` shows its console"))
                    .with_detail(console);
                record.state = VmState::Crashed;
                record.last_failure = Some(failure);
                let decision = upkeep::ended(&mut record, Exit::Died, unix_ms);
                tracing::info!(vm_id = %vm, name, ?decision, "restart policy");
                "unknown: it ended while the daemon was away"
            };
            let how = how.to_owned();
            record.last_exit = Some(ExitReport { unix_ms, how: how.clone() });
            handles = leftovers(&record, handles, leases);
            let written = record.clone();
            deps.store.update_vm(vm, unix_ms, move |kept| *kept = written).await?;
            deps.store.put_handles(vm, handles.clone()).await?;
            let kind = EventKind::VmExited { name, how, expected: false };
            deps.events.publish(Some(op), Some(vm), kind);
        }
        (_, Some(process)) => {
            // No state allows a process here: its actor ends it before anything else.
            tracing::error!(vm_id = %vm, name, pid = process.pid, "process of a vm that does not run");
            record.state = VmState::Crashed;
            handles.process = Some(process);
            let (written, unix_ms) = (record.clone(), deps.ports.clock.unix_ms());
            deps.store.update_vm(vm, unix_ms, move |kept| *kept = written).await?;
            deps.store.put_handles(vm, handles.clone()).await?;
        }
        (_, None) if host_restarted => {
            let before = record.restarts.clone();
            let now = deps.ports.clock.unix_ms();
            upkeep::host_restarted(&mut record, false, now);
            if record.restarts != before {
                let restarts = record.restarts.clone();
                deps.store.update_vm(vm, now, move |kept| kept.restarts = restarts).await?;
            }
        }
        (_, None) => {}
    }
    Ok((record, handles))
}

/// Something must be in the handles for the actor to know that there is cleaning up to do.
fn leftovers(record: &VmRecord, mut handles: VmHandles, leases: &Leases) -> VmHandles {
    handles.tap = leases.get(&record.id).cloned();
    handles.vmm.get_or_insert_with(|| "gone".to_owned());
    handles
}
