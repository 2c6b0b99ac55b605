//! What is wrong with the host or a VM, as clients are told, and the way from there to what is done about
//! it. Looking changes nothing.

use super::answers::parts;
use super::envelope::CallError;
use super::house::House;
use super::janitor::CollectGarbage;
use super::session::{Refusal, Response};
use super::supervisor::{BringUp, Revive};
use super::vm::{Asker, OpRequest, RunOp};
use crate::model::{
    Code, ConditionKind, Diagnosis, Failure, OpId, OpRecord, Outcome, RecoverAction, ResourceKind,
    Situation, VmState, VmView, diagnose,
};
use crate::wire::reply::{Answer, GarbageInfo, LedgerInfo};

/// Among so many operations the one is looked for that got a VM stuck.
const OPS_BACK: usize = 1000;
const SIGCONT: i32 = 18;

pub(super) async fn ledger(house: &House, op: OpId, vm: Option<&str>) -> Result<Response, Refusal> {
    let vm = match vm {
        Some(vm) => Some(house.find(op, vm).await?.view.record.id),
        None => None,
    };
    let books = house.inventory.books()?;
    let taps = books.taps.iter().map(|(tap, of)| (*of, LedgerInfo::from((tap, *of))));
    let rows = books.rows.iter().map(|row| (Some(row.vm), LedgerInfo::from(row)));
    let wanted = rows.chain(taps).filter(|(of, _)| vm.is_none() || *of == vm);
    Ok(parts(wanted.map(|(_, row)| row).collect(), Answer::Ledger))
}

pub(super) async fn find_garbage(house: &House, op: OpId) -> Result<Response, Refusal> {
    let found = house.inventory.compare(op).await?.mismatches;
    Ok(parts(found.iter().map(GarbageInfo::from).collect(), Answer::Garbage))
}

pub(super) async fn collect_garbage(
    house: &House,
    op: OpId,
    request_hash: u64,
) -> Result<Response, Refusal> {
    let collect = CollectGarbage { request_hash };
    Ok(Response::Follow(house.janitor.call(house.ctx(op), collect).await?))
}

pub(super) async fn diagnosis(house: &House, op: OpId, vm: &str) -> Result<Response, Refusal> {
    let (view, diagnosis, rows) = look(house, op, vm).await?;
    let info = (&view, diagnosis, rows).into();
    Ok(Response::Now(Answer::Diagnosis(Box::new(info))))
}

/// Does what the diagnosis says, which is made anew: the host may have changed since it was read.
pub(super) async fn recover(
    house: &House,
    op: OpId,
    vm: &str,
    request_hash: u64,
) -> Result<Response, Refusal> {
    let known = house.store.op(op).map_err(|error| Failure::from(&error))?;
    let (view, diagnosis, _) = look(house, op, vm).await?;
    let name = view.record.spec.name.to_string();
    // Asked again, it is the same operation, whatever is wrong by now.
    let action = match known.as_ref().map(|op| op.kind) {
        Some(crate::model::OpKind::RecoverVm) => RecoverAction::CleanUp,
        Some(crate::model::OpKind::RestartVm) => RecoverAction::Restart,
        _ => diagnosis.action,
    };
    let cmd = |request| RunOp { request, request_hash, by: Asker::Owner };
    match action {
        RecoverAction::None => Ok(Response::Now(Answer::Nothing)),
        RecoverAction::CleanUp => {
            let found = house.find(op, vm).await?;
            let ticket = found.handle?.call(house.ctx(op), cmd(OpRequest::Recover)).await?;
            Ok(Response::Follow(ticket))
        }
        RecoverAction::Restart => {
            let request = OpRequest::Restart { grace: house.config.stop_grace };
            let bring_up = BringUp { vm: vm.to_owned(), cmd: cmd(request) };
            Ok(Response::Follow(house.supervisor.call(house.ctx(op), bring_up).await?))
        }
        RecoverAction::Continue => {
            if let Some(process) = &view.handles.process {
                let signal = house.ports.process.signal(op, view.record.id, process, SIGCONT);
                signal.await.map_err(|error| Failure::from(&error))?;
            }
            Ok(Response::Now(Answer::Nothing))
        }
        RecoverAction::Revive => {
            house.supervisor.call(house.ctx(op), Revive(view.record.id)).await?;
            Ok(Response::Now(Answer::Nothing))
        }
        RecoverAction::Elsewhere => {
            let what = diagnosis.found.join("; ");
            let failure = Failure::new(Code::Refused, format!("recover {name}: {what}"));
            Err(diagnosis.exit.into_iter().fold(failure, Failure::hint).into())
        }
    }
}

async fn look(
    house: &House,
    op: OpId,
    vm: &str,
) -> Result<(VmView, Diagnosis, Vec<LedgerInfo>), Refusal> {
    let found = house.find(op, vm).await?;
    // One that is being built anew is not told apart from one that is up: it will be in a moment.
    let quarantined = matches!(found.handle, Err(CallError::Refused(_)));
    let view = found.view;
    let id = view.record.id;
    let failed = |error: crate::store::StoreError| Failure::from(&error);
    let rows = house.store.ledger_of(id).map_err(failed)?;
    let lease = house.store.tap_of(id).map_err(failed)?;
    let open = house.store.open_ops().map_err(failed)?;
    let abandoned = open.into_iter().find(|op| op.vm == Some(id) && view.busy.is_none());
    let stuck = stuck(house, &view)?;
    let situation = Situation {
        quarantined,
        tap_lost: tap_lost(house, op, &view).await,
        abandoned: abandoned.as_ref(),
        stuck: stuck.as_ref(),
        rows: &rows,
        lease: lease.as_ref(),
        view: &view,
    };
    let diagnosis = diagnose(&situation);
    let mut all: Vec<_> = rows.iter().map(LedgerInfo::from).collect();
    all.extend(lease.iter().map(|tap| LedgerInfo::from((tap, Some(id)))));
    debug_assert!(rows.iter().all(|row| row.kind != ResourceKind::Tap));
    Ok((view, diagnosis, all))
}

fn stuck(house: &House, view: &VmView) -> Result<Option<OpRecord>, Failure> {
    if view.record.state != VmState::Error {
        return Ok(None);
    }
    let ops = house.store.ops(OPS_BACK).map_err(|error| Failure::from(&error))?;
    let last = ops.into_iter().find(|op| op.vm == Some(view.record.id));
    Ok(last.filter(|op| matches!(op.outcome, Some(Outcome::Stuck { .. }))))
}

/// Looked at only where it decides.
async fn tap_lost(house: &House, op: OpId, view: &VmView) -> bool {
    let cut_off = view.conditions.iter().any(|seen| seen.kind == ConditionKind::Network);
    let Some(tap) = view.handles.tap.as_ref().filter(|_| cut_off) else { return false };
    match house.ports.net.survey(op).await {
        Ok(seen) => !seen.taps.get(tap).is_some_and(|tap| tap.used),
        Err(_) => false,
    }
}
