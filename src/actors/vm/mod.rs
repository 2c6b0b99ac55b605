//! One VM: at most one operation in flight, published state with a generation.
//!
//! ```text
//! RunOp ─ admit ─> running ──OpDone──> idle ──ProcessExited──> clean-up (running)
//!            ├ stop, kill, delete: cancel what starts, wait for its undo, then run
//!            └ anything: wait for a clean-up, which nobody asked for, then run
//! ```
//!
//! A handler reads: admit, mutate, launch, reply. It never does the work: that runs on a tracked
//! task, because actix drops an actor's futures half way when the actor stops. The task tracker
//! belongs to the supervisor, so an operation also outlives the actor that launched it.

mod care;
mod conditions;
mod gauge;
mod health;
mod host_boot;
mod messages;
mod monitor;
mod op;
mod pulse;
mod recovery;
mod refuge;
mod standstill;
mod upkeep;

use std::sync::Arc;

use actix::WeakRecipient;
use actix::prelude::*;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub(super) use conditions::Observe;
pub(super) use messages::Changes;
pub(super) use messages::HeldBack;
#[cfg(test)]
pub(crate) use messages::PanicNow;
pub use messages::{Asker, Ended, OpRequest, RunOp, Ticket};
pub(super) use messages::{Cancel, CancelOp};
pub use recovery::recover;

use super::envelope::{CallError, OpCtx, Req};
use super::events::EventSink;
use super::mint::Mint;
use super::watch::{ChildDown, StartDue};
use crate::model::{
    Code, Condition, EventKind, Exit, Failure, Health, Incarnation, OpId, OpRecord, Refused,
    VmEvent, VmHandles, VmId, VmRecord, VmState, VmView, Wanted, admits, step,
};
use crate::ops::Settings;
use crate::ports::Ports;
use crate::store::Store;
use care::Checker;
use messages::{DiskSeen, OpDone, ProcessExited};
use monitor::{Ears, Watched};
use op::Op;

/// What a VM actor is given; the same for every incarnation.
#[derive(Clone, Debug)]
pub struct VmDeps {
    pub store: Store,
    pub ports: Ports,
    pub settings: Arc<Settings>,
    pub events: EventSink,
    pub mint: Mint,
}

/// What outlives one incarnation, held by the supervisor.
#[derive(Clone, Debug)]
pub(super) struct VmScope {
    pub(super) vm: VmId,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    pub(super) view: Arc<watch::Sender<VmView>>,
    /// Weak: a child that held its parent's address would keep it alive for ever.
    pub(super) parent: WeakRecipient<ChildDown>,
    /// Who starts VMs whose policy's time has come.
    pub(super) starter: WeakRecipient<StartDue>,
    pub(super) deps: Arc<VmDeps>,
}

#[derive(Debug)]
pub struct VmActor {
    scope: VmScope,
    incarnation: Incarnation,
    record: VmRecord,
    handles: VmHandles,
    running: Option<Running>,
    /// What interrupted the running operation and follows it.
    next: Option<Waiting>,
    monitor: Option<DropGuard>,
    conditions: Vec<Condition>,
    /// How its health checks have gone, while it runs.
    health: Option<Health>,
    checker: Option<Checker>,
    /// Until its policy starts it again.
    timer: Option<SpawnHandle>,
    deleted: bool,
}

#[derive(Debug)]
struct Running {
    op_id: OpId,
    request: OpRequest,
    cancel: CancellationToken,
    accepted: Accepting,
}

#[derive(Debug)]
struct Waiting {
    op_id: OpId,
    cmd: RunOp,
    span: tracing::Span,
    accept: oneshot::Sender<Result<Ticket, CallError>>,
    accepted: Accepting,
}

/// Ends when the intent is durable; shared, so that a retry waits for the same answer.
type Accepting = Shared<BoxFuture<'static, Result<Ticket, CallError>>>;

fn accepting() -> (oneshot::Sender<Result<Ticket, CallError>>, Accepting) {
    let (accept, accepted) = oneshot::channel();
    let accepted = accepted.map(|reply| reply.unwrap_or(Err(CallError::Gone))).boxed().shared();
    (accept, accepted)
}

impl VmActor {
    /// The view is what the last incarnation, or the store, knew.
    pub(super) fn new(scope: VmScope, incarnation: Incarnation) -> Self {
        let view = scope.view.borrow().clone();
        let VmView { record, handles, .. } = view;
        Self {
            scope,
            incarnation,
            record,
            handles,
            running: None,
            next: None,
            monitor: None,
            conditions: vec![],
            health: None,
            checker: None,
            timer: None,
            deleted: false,
        }
    }

    fn launch(
        &mut self,
        op_id: OpId,
        cmd: RunOp,
        accept: oneshot::Sender<Result<Ticket, CallError>>,
        accepted: Accepting,
        span: &tracing::Span,
        ctx: &mut Context<Self>,
    ) {
        let RunOp { request, request_hash, by } = cmd;
        let cancel = self.scope.cancel.child_token();
        let (begun, cancelled) = (request.clone(), cancel.clone());
        self.running = Some(Running { op_id, request: begun, cancel: cancelled, accepted });
        self.disarm(ctx);
        if let (Asker::Owner, Some(wanted)) = (by, request.wish()) {
            self.record.want(wanted);
        }
        if request.changes_run() {
            self.monitor = None; // an end that was asked for is no crash
            self.conditions.clear();
            (self.health, self.checker) = (None, None);
        }
        if let OpRequest::Set(changes) = &request {
            changes.apply(&mut self.record);
        }
        let (kind, state) = (request.kind(), request.state_when_begun(self.record.state));
        let op = Op {
            op_id,
            request,
            request_hash,
            by,
            record: self.record.clone(),
            handles: self.handles.clone(),
            generation: self.scope.view.borrow().generation,
            cancel,
            closing: self.scope.cancel.clone(),
            deps: Arc::clone(&self.scope.deps),
            leftovers: matches!(self.record.state, VmState::Crashed | VmState::Error),
        };
        self.record.state = state;
        self.publish();
        let (actor, incarnation) = (ctx.address().downgrade().recipient(), self.incarnation);
        let task = async move {
            let ended = op.run(accept).await;
            if let Some(actor) = actor.upgrade() {
                actor.do_send(OpDone { incarnation, ended });
            }
        };
        let span = tracing::info_span!(
            parent: span, "op", %op_id, vm_id = %self.scope.vm, kind = kind.as_str()
        );
        self.scope.tasks.spawn(task.instrument(span));
    }

    fn publish(&self) {
        let busy = self.running.as_ref().map(|running| (running.op_id, running.request.kind()));
        let (record, handles) = (self.record.clone(), self.handles.clone());
        let (conditions, health) = (self.conditions.clone(), self.health.clone());
        self.scope.view.send_modify(|view| {
            let generation = view.generation + 1;
            *view = VmView { record, handles, generation, busy, conditions, health };
        });
    }

    /// Watches the process that runs, if one does and nothing is in flight.
    fn watch_process(&mut self, ctx: &Context<Self>) {
        self.monitor = None;
        if let (VmState::Running, Some(process)) = (self.record.state, &self.handles.process) {
            let (vm, incarnation) = (self.scope.vm, self.incarnation);
            let (view, mint) = (self.scope.view.subscribe(), self.scope.deps.mint.clone());
            let watched = Watched { vm, incarnation, process: process.clone(), view, mint };
            let me = ctx.address().downgrade();
            let (exited, disk) = (me.clone().recipient(), me.clone().recipient());
            let ears = Ears { exited, disk, observed: me.recipient() };
            self.monitor = Some(monitor::watch(watched, self.scope.deps.ports.clone(), ears));
        }
        self.check_health(ctx);
    }

    /// Takes away what a VM that ended by itself left on the host.
    fn clean_up(&mut self, op_id: OpId, ctx: &mut Context<Self>) {
        let cmd = RunOp { request: OpRequest::CleanUp, request_hash: 0, by: Asker::Host };
        let (accept, accepted) = accepting();
        self.launch(op_id, cmd, accept, accepted, &tracing::Span::none(), ctx);
    }

    /// The present truth from the store, for what the operation left unsaid.
    fn reload(&mut self) {
        match self.scope.deps.store.vm(self.scope.vm) {
            Ok(Some(record)) => self.record = record,
            Ok(None) => self.deleted = true,
            Err(error) => {
                tracing::error!(vm_id = %self.scope.vm, error = %crate::model::chain(&error), "record not read");
            }
        }
        let handles = self.scope.deps.store.handles(self.scope.vm);
        self.handles = handles.ok().flatten().unwrap_or_default();
    }

    /// The VM went while the request waited: what a delete wants is so already.
    fn answer_gone(&self, op_id: OpId, cmd: &RunOp) -> Result<Ticket, CallError> {
        let name = &self.record.spec.name;
        if cmd.request == OpRequest::Delete {
            let op = self.unrecorded(op_id, cmd);
            return Ok(Ticket::settled(op::unchanged(op, "already gone".to_owned(), None)));
        }
        let failure = Failure::new(Code::NotFound, format!("{name} was never whole and is gone"));
        Err(failure.of(op_id).into())
    }

    /// Describes an operation that changes nothing and is not kept.
    fn unrecorded(&self, op_id: OpId, cmd: &RunOp) -> OpRecord {
        OpRecord {
            id: op_id,
            kind: cmd.request.kind(),
            vm: Some(self.scope.vm),
            subject: self.record.spec.name.to_string(),
            request_hash: cmd.request_hash,
            started_unix_ms: self.scope.deps.ports.clock.unix_ms(),
            ended_unix_ms: None,
            outcome: None,
        }
    }

    /// What is said of a request that will not be run.
    fn refuse(&self, op_id: OpId, cmd: &RunOp) -> Option<Result<Ticket, CallError>> {
        let name = &self.record.spec.name;
        match &cmd.request {
            OpRequest::Set(changes) => {
                let failure = changes.check(&self.record).err()?;
                return Some(Err(failure.of(op_id).into()));
            }
            OpRequest::Collect(kind) => {
                let failure = self.keeps(*kind)?;
                return Some(Err(failure.of(op_id).into()));
            }
            OpRequest::Recover => return self.nothing_to_recover(op_id, cmd),
            _ => {}
        }
        let due = self.record.restarts.next_unix_ms.is_some();
        if cmd.by == Asker::Policy && (self.record.wanted == Wanted::Stopped || !due) {
            let why = format!("{name} is not to be started any more");
            return Some(Err(Failure::new(Code::Cancelled, why).of(op_id).into()));
        }
        let refused = admits(self.record.state, cmd.request.verb()?).err()?;
        Some(match refused {
            // It is off and would not have stayed so.
            Refused::Already(_) if due && cmd.request.interrupts() => return None,
            Refused::Already(_) => {
                let op = self.unrecorded(op_id, cmd);
                let view = self.scope.view.borrow().clone();
                Ok(Ticket::settled(op::unchanged(op, refused.to_string(), Some(view))))
            }
            Refused::NotRunning { .. } | Refused::NotSuspended { .. } | Refused::HoldsMemory => {
                let failure = Failure::new(Code::Refused, format!("{name}: {refused}"));
                let hint = match refused {
                    Refused::HoldsMemory => format!(
                        "continue it first with: banger vm resume {name}; or throw its memory away \
                         with: banger vm kill {name}"
                    ),
                    _ => format!("start it with: banger vm start {name}"),
                };
                Err(failure.hint(hint).of(op_id).into())
            }
        })
    }
}

impl Actor for VmActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.incarnation > Incarnation(1) {
            self.reload(); // what an earlier incarnation published is history
        }
        self.publish();
        self.watch_process(ctx);
        // Cut short, or found dead at start.
        let off = matches!(self.record.state, VmState::Crashed | VmState::Stopped | VmState::Error);
        if off && self.handles != VmHandles::default() {
            self.clean_up(self.scope.deps.mint.op(), ctx);
        }
        self.arm(ctx);
    }

    /// Runs during a panic too, where a second panic would abort the daemon: one send, no more.
    fn stopped(&mut self, _: &mut Self::Context) {
        let (vm, incarnation) = (self.scope.vm, self.incarnation);
        let panicked = std::thread::panicking();
        if let Some(parent) = self.scope.parent.upgrade() {
            parent.do_send(ChildDown { vm, incarnation, panicked });
        }
    }
}

impl Handler<Req<RunOp>> for VmActor {
    type Result = ResponseActFuture<Self, Result<Ticket, CallError>>;

    fn handle(&mut self, req: Req<RunOp>, ctx: &mut Self::Context) -> Self::Result {
        let Req { ctx: OpCtx { op_id, span, .. }, mut cmd, .. } = req;
        if self.running.is_none() {
            cmd.request = cmd.request.clone().of(self.record.state);
        }
        let known = self.running.as_ref().map(|r| (r.op_id, r.accepted.clone()));
        let queued = self.next.as_ref().map(|next| (next.op_id, next.accepted.clone()));
        for (id, accepted) in known.iter().chain(&queued) {
            if *id == op_id {
                return Box::pin(accepted.clone().into_actor(self));
            }
        }
        let (accept, accepted) = accepting();
        match &self.running {
            None => {
                if let Some(answer) = self.refuse(op_id, &cmd) {
                    return Box::pin(fut::ready(answer));
                }
                self.launch(op_id, cmd, accept, accepted.clone(), &span, ctx);
            }
            Some(running) if self.next.is_none() && cmd.request.may_follow(&running.request) => {
                if running.request.interruptible() {
                    tracing::info!(interrupted = %running.op_id, by = %op_id, "interrupted");
                    running.cancel.cancel();
                }
                let accepted = accepted.clone();
                self.next = Some(Waiting { op_id, cmd, span, accept, accepted });
            }
            Some(running) => {
                let refusal = op::busy(op_id, running.op_id, self.record.spec.name.as_str());
                return Box::pin(fut::ready(Err(refusal)));
            }
        }
        Box::pin(accepted.into_actor(self)) // droppable without harm: it only waits
    }
}

impl Handler<Req<CancelOp>> for VmActor {
    type Result = Result<Cancel, CallError>;

    fn handle(&mut self, req: Req<CancelOp>, _: &mut Self::Context) -> Self::Result {
        Ok(match &self.running {
            Some(running) if running.op_id != req.cmd.0 => Cancel::NotRunning,
            Some(running) if !running.request.interruptible() => Cancel::OnlyForward,
            Some(running) => {
                running.cancel.cancel();
                Cancel::Begun
            }
            None => Cancel::NotRunning,
        })
    }
}

impl Handler<OpDone> for VmActor {
    type Result = ();

    fn handle(&mut self, done: OpDone, ctx: &mut Self::Context) {
        if done.incarnation != self.incarnation {
            return;
        }
        self.running = None;
        match done.ended {
            Some(Ended { view: Some(view), .. }) => {
                self.record = view.record;
                self.handles = view.handles;
            }
            Some(Ended { view: None, .. }) => self.deleted = true,
            None => self.reload(),
        }
        if self.deleted {
            if let Some(Waiting { op_id, cmd, accept, .. }) = self.next.take() {
                drop(accept.send(self.answer_gone(op_id, &cmd)));
            }
            return ctx.stop(); // the parent learns it from `stopped` and the store
        }
        self.publish();
        self.watch_process(ctx);
        if let Some(Waiting { op_id, mut cmd, span, accept, accepted }) = self.next.take() {
            cmd.request = cmd.request.clone().of(self.record.state);
            // The interrupted operation may have left nothing to do.
            match self.refuse(op_id, &cmd) {
                Some(answer) => drop(accept.send(answer)),
                None => self.launch(op_id, cmd, accept, accepted, &span, ctx),
            }
        }
        self.arm(ctx);
    }
}

impl Handler<DiskSeen> for VmActor {
    type Result = ();

    fn handle(&mut self, seen: DiskSeen, _: &mut Self::Context) {
        if seen.incarnation != self.incarnation || self.record.state != VmState::Running {
            return;
        }
        let text = seen.warning;
        tracing::warn!(vm_id = %self.scope.vm, text, "disk watched");
        self.scope.deps.events.publish(None, Some(self.scope.vm), EventKind::Note { text });
    }
}

impl Handler<ProcessExited> for VmActor {
    type Result = ();

    fn handle(&mut self, exited: ProcessExited, ctx: &mut Self::Context) {
        let current = self.handles.process.as_ref().is_some_and(|p| p.pid == exited.pid);
        if exited.incarnation != self.incarnation || !current || self.running.is_some() {
            return; // an operation is dealing with it
        }
        let op_id = self.scope.deps.mint.op();
        let name = self.record.spec.name.to_string();
        tracing::warn!(%op_id, vm_id = %self.scope.vm, how = exited.report.how, "the VMM ended by itself");
        let how = exited.report.how.clone();
        let kind = EventKind::VmExited { name: name.clone(), how: how.clone(), expected: false };
        self.scope.deps.events.publish(Some(op_id), Some(self.scope.vm), kind);
        let failure = Failure::new(Code::GuestDied, format!("the VMM of {name} ended: {how}"))
            .hint(format!("`banger vm logs {name}` shows its console"))
            .of(op_id)
            .with_detail(exited.console);
        self.record.last_failure = Some(failure);
        self.record.last_exit = Some(exited.report);
        self.record.state = step(self.record.state, &VmEvent::ProcessExited);
        self.conditions.clear();
        (self.health, self.checker) = (None, None);
        let now = self.scope.deps.ports.clock.unix_ms();
        let decision = upkeep::ended(&mut self.record, Exit::Died, now);
        self.announce(Some(op_id), decision, now);
        self.publish();
        self.clean_up(op_id, ctx);
    }
}

#[cfg(test)]
impl Handler<Req<PanicNow>> for VmActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, _: Req<PanicNow>, _: &mut Self::Context) -> Self::Result {
        panic!("planned panic")
    }
}
