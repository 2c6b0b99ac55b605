//! One operation on its own task: intent, plan, journal, outcome, in that order.
//!
//! It runs on a worker thread under the supervisor's tracker, so it outlives the actor that
//! launched it and the client that asked for it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::messages::{Asker, Ended, OpRequest, Ticket};
use super::{VmDeps, recovery, upkeep};
use crate::actors::envelope::CallError;
use crate::actors::patience::Patience;
use crate::model::{
    Code, EventKind, Failure, KernelFeatures, OpId, OpRecord, Outcome, VmEvent, VmHandles,
    VmRecord, VmState, VmView, step,
};
use crate::ops::{self, Finished, Plan, RunError, StepCx, StoreJournal};
use crate::store::Intent;

pub(super) struct Op {
    pub(super) op_id: OpId,
    pub(super) request: OpRequest,
    pub(super) request_hash: u64,
    pub(super) by: Asker,
    pub(super) record: VmRecord,
    pub(super) handles: VmHandles,
    pub(super) generation: u64,
    pub(super) cancel: CancellationToken,
    /// Cancelled when the daemon ends.
    pub(super) closing: CancellationToken,
    pub(super) deps: Arc<VmDeps>,
    /// Its last run may have left something on the host.
    pub(super) leftovers: bool,
}

/// Why an operation has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsettled {
    /// The store takes no writes: it goes on from what is durable when it does again.
    NotWritten,
    /// What is durable does not say how it is to go on.
    Senseless,
}

impl Op {
    /// Returns nothing when the operation could not be finished; recovery takes it from there.
    pub(super) async fn run(
        mut self,
        accept: oneshot::Sender<Result<Ticket, CallError>>,
    ) -> Option<Ended> {
        let (done, ended) = watch::channel(None);
        let ticket = Ticket { op_id: self.op_id, ended };
        let started = self.begin().await;
        match started {
            Ok(None) => drop(accept.send(Ok(ticket))), // the caller may have stopped waiting
            Ok(Some(known)) => {
                let ended = Ended { op: known, failure: None, view: None };
                drop(accept.send(Ok(Ticket::settled(ended))));
                return None;
            }
            Err(failure) => {
                drop(accept.send(Err(failure.into())));
                return None;
            }
        }
        let ended = match self.carry_out().await {
            Err(Unsettled::NotWritten) => self.settle_when_it_can_be_written().await,
            ended => ended,
        };
        match ended {
            Ok(ended) => {
                drop(done.send_replace(Some(ended.clone())));
                Some(ended)
            }
            Err(why) => {
                tracing::error!(?why, "operation not finished; recovery will settle it");
                None
            }
        }
    }

    /// As the next daemon would, but without one: the VM stays busy with it until then.
    async fn settle_when_it_can_be_written(&self) -> Result<Ended, Unsettled> {
        let text =
            "the journal cannot be written; the operation is settled as soon as it can".to_owned();
        self.deps.events.publish(Some(self.op_id), Some(self.record.id), EventKind::Note { text });
        let mut patience = Patience::new();
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return Err(Unsettled::NotWritten),
                () = patience.pause() => {}
            }
            match recovery::settle_anew(self).await {
                Err(Unsettled::NotWritten) => {}
                ended => return ended,
            }
        }
    }

    /// Makes the intent durable, together with the state it puts the VM in. A known operation is
    /// answered with what is known of it.
    async fn begin(&mut self) -> Result<Option<OpRecord>, Failure> {
        self.record.state = self.request.state_when_begun(self.record.state);
        // A creation's intent was written with the reservation; a retry of it may come after its end.
        if let OpRequest::Create { start } = self.request {
            let known = self.deps.store.op(self.op_id).map_err(|error| Failure::from(&error))?;
            if let Some(ended) = known.filter(|op| op.outcome.is_some()) {
                return Ok(Some(ended));
            }
            if start {
                let (name, state) = (self.record.spec.name.to_string(), self.record.state);
                let (op, vm) = (Some(self.op_id), Some(self.record.id));
                self.deps.events.publish(op, vm, EventKind::VmChanged { name, state });
            }
        } else {
            let intent = self.deps.store.begin_vm(self.intent(), self.record.clone()).await;
            match intent.map_err(|error| Failure::from(&error).of(self.op_id))? {
                Intent::Recorded => {}
                Intent::Known(record) => return Ok(Some(record)),
            }
        }
        if self.by == Asker::Policy {
            let text = upkeep::said_of_start(&self.record);
            let (op, vm) = (Some(self.op_id), Some(self.record.id));
            self.deps.events.publish(op, vm, EventKind::Note { text });
        }
        Ok(None)
    }

    fn intent(&self) -> OpRecord {
        OpRecord {
            id: self.op_id,
            kind: self.request.kind(),
            vm: Some(self.record.id),
            subject: self.record.spec.name.to_string(),
            request_hash: self.request_hash,
            started_unix_ms: self.deps.ports.clock.unix_ms(),
            ended_unix_ms: None,
            outcome: None,
        }
    }

    async fn carry_out(&mut self) -> Result<Ended, Unsettled> {
        let (plan, cx) = (plan_for(&self.request, &self.record, self.leftovers), self.step_cx());
        let mut journal = StoreJournal::new(self.deps.store.clone(), self.op_id);
        let finished = ops::run(&plan, &cx, &mut journal).await;
        self.conclude(finished, &cx).await
    }

    /// Finishes, or takes back, what was cut short.
    pub(super) async fn recover(mut self) -> Result<Ended, Unsettled> {
        let resumed = StoreJournal::resume(self.deps.store.clone(), self.op_id);
        let (mut journal, history) = resumed.map_err(|error| {
            tracing::error!(error = %crate::model::chain(&error), "journal not read");
            Unsettled::NotWritten
        })?;
        let plan = ops::plan_for_recovery(self.request.kind(), &self.record, &history)
            .ok_or(Unsettled::Senseless)?;
        if let OpRequest::Create { start } = &mut self.request {
            *start = plan.len() > 1; // only the journal knows whether it went on to the start
        }
        let cx = self.step_cx();
        let finished = ops::recover(&plan, &cx, &mut journal, &history).await;
        self.conclude(finished, &cx).await
    }

    async fn conclude(
        &mut self,
        finished: Result<Finished, RunError>,
        cx: &StepCx,
    ) -> Result<Ended, Unsettled> {
        match finished {
            Ok(finished) => self.settle(finished, cx.observed.handles()).await,
            Err(error) => {
                tracing::error!(error = %crate::model::chain(&error), "operation stopped dead");
                Err(match error {
                    RunError::Journal(_) => Unsettled::NotWritten,
                    RunError::Illegal(_) | RunError::UnknownStep(_) => Unsettled::Senseless,
                })
            }
        }
    }

    fn step_cx(&self) -> StepCx {
        let events = self.deps.events.clone();
        let (op_id, vm) = (self.op_id, self.record.id);
        let (ports, settings) = (self.deps.ports.clone(), Arc::clone(&self.deps.settings));
        let image = self.deps.store.image_use(vm).unwrap_or_else(|error| {
            let error = crate::model::chain(&error);
            tracing::error!(error, "what the image says of how it is run was not read");
            None
        });
        let kernel = self.deps.store.kernel_features(self.record.kernel).unwrap_or_else(|error| {
            let error = crate::model::chain(&error);
            tracing::error!(error, "which options the kernel has was not read");
            KernelFeatures::default()
        });
        StepCx {
            image: image.map(Arc::new),
            kernel: Arc::new(kernel),
            cancel: self.cancel.clone(),
            watcher: Arc::new(move |kind| events.publish(Some(op_id), Some(vm), kind)),
            ..StepCx::new(op_id, self.record.clone(), ports, settings)
        }
    }

    /// Outcome and the VM's new state become durable in one job.
    async fn settle(&mut self, finished: Finished, seen: VmHandles) -> Result<Ended, Unsettled> {
        let Finished { outcome, failure } = finished;
        let (store, now) = (self.deps.store.clone(), self.deps.ports.clock.unix_ms());
        let failure = failure.map(|failure| failure.of(self.op_id));
        let gone = match self.request {
            OpRequest::Create { .. } => !ops::keeps_vm(&outcome),
            OpRequest::Delete => matches!(outcome, Outcome::Done | Outcome::Unchanged(_)),
            _ => false,
        };
        self.apply(&outcome, failure.clone(), seen);
        upkeep::after_operation(&mut self.record, &self.request, self.by, failure.as_ref(), now);
        let written = if gone {
            store.delete_vm(self.op_id, outcome.clone(), now, self.record.id).await
        } else {
            let (record, handles) = (self.record.clone(), self.handles.clone());
            store.settle_vm(self.op_id, outcome.clone(), now, record, handles).await
        };
        if let Err(error) = written {
            tracing::error!(error = %crate::model::chain(&error), "outcome not written");
            return Err(Unsettled::NotWritten);
        }
        let op = store.op(self.op_id).ok().flatten().ok_or(Unsettled::NotWritten)?;
        let view = (!gone).then(|| self.view(self.record.clone(), self.handles.clone()));
        Ok(Ended { op, failure, view })
    }

    /// Of a VM that is busy with nothing any more.
    pub(super) fn view(&self, record: VmRecord, handles: VmHandles) -> VmView {
        let (conditions, generation) = (vec![], self.generation);
        VmView { record, handles, generation, busy: None, conditions, health: None }
    }

    fn apply(&mut self, outcome: &Outcome, failure: Option<Failure>, seen: VmHandles) {
        if matches!(self.request, OpRequest::Set(_) | OpRequest::Collect(_)) {
            return; // how it runs is another matter
        }
        let record = &mut self.record;
        record.state = match &self.request {
            OpRequest::Create { start: false } if *outcome == Outcome::Done => VmState::Created,
            OpRequest::Create { .. }
            | OpRequest::Start
            | OpRequest::StartCold
            | OpRequest::StartRepaired => step(record.state, &VmEvent::StartEnded(outcome.clone())),
            OpRequest::Suspend => step(record.state, &VmEvent::SuspendEnded(outcome.clone())),
            OpRequest::Resume => step(record.state, &VmEvent::ResumeEnded(outcome.clone())),
            // Stopped half way and not started again, or started: the plan's last word decides.
            OpRequest::Restart { .. } => step(record.state, &VmEvent::StartEnded(outcome.clone())),
            OpRequest::CleanUp if !matches!(outcome, Outcome::Stuck { .. }) => record.state,
            OpRequest::Stop { .. }
            | OpRequest::Kill { .. }
            | OpRequest::Delete
            | OpRequest::CleanUp => step(record.state, &VmEvent::StopEnded(outcome.clone())),
            OpRequest::Recover => step(record.state, &VmEvent::RecoverEnded(outcome.clone())),
            OpRequest::Set(_) | OpRequest::Collect(_) => record.state,
        };
        match (&self.request, failure) {
            // The story of the crash stays until the VM runs again.
            (OpRequest::CleanUp, None) => {}
            (_, Some(failure)) => record.last_failure = Some(failure),
            (_, None) => {
                record.last_failure = None;
                if record.state == VmState::Running {
                    record.last_exit = None;
                }
            }
        }
        self.handles = match (record.state, &self.request) {
            // Its process went on as if nothing had been asked.
            (VmState::Running, OpRequest::Suspend) => std::mem::take(&mut self.handles),
            (VmState::Running, _) => seen,
            // Nothing else can read its memory.
            (VmState::Suspended, _) => {
                VmHandles { vmm: self.handles.vmm.take(), ..VmHandles::default() }
            }
            _ => VmHandles::default(),
        };
    }
}

/// `leftovers`: the VM's last run may have left something on the host.
fn plan_for(request: &OpRequest, vm: &VmRecord, leftovers: bool) -> Plan {
    match request {
        OpRequest::Create { start: false } => ops::create_vm(vm),
        OpRequest::Create { start: true } => ops::create_and_start(vm),
        OpRequest::StartCold => ops::start_after_clean_up(vm),
        OpRequest::StartRepaired => ops::start_with_repair(vm),
        OpRequest::Start if leftovers => ops::start_after_clean_up(vm),
        OpRequest::Suspend => ops::suspend_vm(),
        OpRequest::Resume => ops::resume_vm(vm),
        OpRequest::Start => ops::start_vm(vm),
        OpRequest::Stop { grace } => ops::stop_vm(Some(*grace)),
        OpRequest::Kill { signal } => ops::kill_vm(Some(*signal)),
        OpRequest::Restart { grace } => ops::restart_vm(vm, Some(*grace)),
        OpRequest::Delete => ops::delete_vm(),
        OpRequest::CleanUp => ops::clean_up_vm(),
        OpRequest::Set(_) => ops::set_vm(),
        OpRequest::Collect(kind) => ops::collect_vm(*kind),
        OpRequest::Recover => ops::recover_vm(vm),
    }
}

/// Answers an operation that has nothing to do.
pub(super) fn unchanged(op: OpRecord, why: String, view: Option<VmView>) -> Ended {
    let ended_unix_ms = Some(op.started_unix_ms);
    let op = OpRecord { outcome: Some(Outcome::Unchanged(why)), ended_unix_ms, ..op };
    Ended { op, failure: None, view }
}

pub(super) fn busy(op_id: OpId, holder: OpId, name: &str) -> CallError {
    Failure::new(Code::Busy, format!("{name} is busy with another operation, {holder}"))
        .hint(format!("`banger ops show {holder}` shows what it does"))
        .of(op_id)
        .into()
}
