//! Collects what the ledger and the host disagree on, as an operation with a step for each.
//!
//! ```text
//! compare ─> orphan or row of a VM that is gone ──is it still unknown?──> taken away here
//!         ├> of a known VM ──> its actor looks again, when nothing else happens to it, and does it
//!         ├> tap ──> the pool looks again ├> leftover files ──> the owner of images sweeps
//! ```
//!
//! Who owns a thing decides, at the moment at which it is done: what was found may be untrue by then. A
//! step that fails does not stop the others. What must not be done here: touch what a known VM holds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::envelope::{CallError, Command, OpCtx, Req};
use super::handle::Handle;
use super::images::{ImagesActor, SweepLeftovers};
use super::inventory::Inventory;
use super::mint::Mint;
use super::service::{self, DeathBell};
use super::solo::{Desk, Done, Solo};
use super::supervisor::{FindVm, SupervisorActor};
use super::tap_pool::TapPoolHandle;
use super::vm::{Asker, OpRequest, RunOp, Ticket};
use crate::model::{
    Code, Cure, Failure, LedgerChange, LedgerRow, Mismatch, OpId, OpKind, OpRecord, Outcome,
    ResourceKind, TapName, VmId,
};
use crate::ports::{Ports, TapSource};

const SLOTS: usize = 8;
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The same for every incarnation.
#[derive(Debug)]
pub struct JanitorDeps {
    pub inventory: Inventory,
    pub ports: Ports,
    pub taps: TapPoolHandle,
    pub images: Handle<ImagesActor>,
    pub supervisor: Handle<SupervisorActor>,
    pub events: super::events::EventSink,
    pub mint: Mint,
    pub tasks: TaskTracker,
}

/// Runs one collection at a time.
#[derive(Debug)]
pub struct JanitorActor {
    bell: DeathBell,
    deps: Arc<JanitorDeps>,
    last: Option<Ticket>,
}

/// Deals with all that a comparison finds and that is ours to deal with.
#[derive(Clone, Copy, Debug)]
pub struct CollectGarbage {
    pub request_hash: u64,
}

impl Command for CollectGarbage {
    type Reply = Ticket;
    const NAME: &'static str = "janitor.collect";
}

impl JanitorActor {
    #[must_use]
    pub fn launch(deps: JanitorDeps) -> Handle<Self> {
        let deps = Arc::new(deps);
        service::keep("janitor", SLOTS, Some(deps.events.clone()), move |bell| {
            Self { bell, deps: Arc::clone(&deps), last: None }.start()
        })
    }
}

impl Actor for JanitorActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl Handler<Req<CollectGarbage>> for JanitorActor {
    type Result = Result<Ticket, CallError>;

    fn handle(&mut self, req: Req<CollectGarbage>, _: &mut Self::Context) -> Self::Result {
        let Req { ctx: OpCtx { op_id, span, .. }, cmd: CollectGarbage { request_hash }, .. } = req;
        let running = self.last.as_ref().filter(|ticket| ticket.ended.borrow().is_none());
        match running {
            Some(ticket) if ticket.op_id == op_id => return Ok(ticket.clone()),
            Some(ticket) => {
                let message = format!("a collection is under way, {}", ticket.op_id);
                return Err(Failure::new(Code::Busy, message).of(op_id).into());
            }
            None => {}
        }
        let (done, ended) = watch::channel(None);
        let ticket = Ticket { op_id, ended };
        self.last = Some(ticket.clone());
        let deps = Arc::clone(&self.deps);
        let span = tracing::info_span!(parent: &span, "op", %op_id, kind = "gc");
        let task = async move { deps.collect(op_id, request_hash, &done).await };
        self.deps.tasks.spawn(task.instrument(span));
        Ok(ticket)
    }
}

impl JanitorDeps {
    async fn collect(&self, op_id: OpId, request_hash: u64, done: &Done) {
        let clock = Arc::clone(&self.ports.clock);
        let intent = OpRecord {
            id: op_id,
            kind: OpKind::CollectGarbage,
            vm: None,
            subject: "host".to_owned(),
            request_hash,
            started_unix_ms: clock.unix_ms(),
            ended_unix_ms: None,
            outcome: None,
        };
        let (store, events) = (self.inventory.store.clone(), self.events.clone());
        let desk = Desk { store, clock, events };
        let Some(mut op) = Solo::begin(desk, intent, done).await else { return };
        let mut found = vec![];
        let comparing = async {
            found = self.inventory.compare(op_id).await?.mismatches;
            found.retain(|mismatch| mismatch.cure.acts());
            Ok(format!("{} to deal with", found.len()))
        };
        if let Err(failure) = op.step("compare", comparing).await {
            let (step, cause) = ("compare".to_owned(), failure.message.clone());
            let outcome = Outcome::RolledBack { step, cause };
            return op.end(outcome, Some(failure), done).await;
        }
        if found.is_empty() {
            let why = "ledger and host agree".to_owned();
            return op.end(Outcome::Unchanged(why), None, done).await;
        }
        let mut failed: Option<(String, Failure)> = None;
        for mismatch in &found {
            let step = step_of(mismatch);
            if let Err(failure) = op.step(&step, self.deal_with(op_id, mismatch)).await {
                failed.get_or_insert((step, failure));
            }
        }
        match failed {
            None => op.end(Outcome::Done, None, done).await,
            Some((step, failure)) => {
                let cause = failure.message.clone();
                let undo =
                    "what was dealt with stays so; `banger gc` shows what is left".to_owned();
                op.end(Outcome::Stuck { step, cause, undo }, Some(failure), done).await;
            }
        }
    }

    /// Answers with what was done.
    async fn deal_with(&self, op: OpId, mismatch: &Mismatch) -> Result<String, Failure> {
        let (kind, name) = (mismatch.thing.kind, mismatch.thing.name.as_str());
        match (kind, mismatch.thing.vm) {
            (ResourceKind::Leftover, _) => {
                let swept = self.images.call(ctx(op), SweepLeftovers).await;
                swept.map(|count| format!("{count} swept")).map_err(Failure::from)
            }
            (ResourceKind::Loop, _) => done(self.ports.disk.detach_loop(op, Path::new(name)).await),
            (ResourceKind::Tap, None) => {
                let discarded = self.taps.discard(op, TapName(name.to_owned())).await;
                discarded.map(|()| String::new()).map_err(Failure::from)
            }
            (_, Some(vm)) if self.inventory.store.has_vm(vm) => match mismatch.cure {
                Cure::Record => self.record(op, mismatch, vm).await,
                _ => self.by_its_owner(op, vm, kind).await,
            },
            (ResourceKind::Tap, Some(vm)) => done(self.taps.release(op, vm).await),
            (_, Some(vm)) => self.of_nobody(op, vm, kind, name).await,
            (ResourceKind::RunDir, None) => {
                let vms = self.inventory.books()?.vms;
                if vms.keys().any(|vm| vm.short() == name) {
                    return Err(Failure::new(Code::InUse, format!("a VM has {name} by now")));
                }
                done(self.ports.disk.remove_run_dir_named(op, name).await)
            }
            (_, None) => Err(Failure::new(Code::Internal, format!("{kind} {name} names no VM"))),
        }
    }

    /// Of a VM that the store does not know. Ids are random and never come back, so it stays unknown.
    async fn of_nobody(
        &self,
        op: OpId,
        vm: VmId,
        kind: ResourceKind,
        name: &str,
    ) -> Result<String, Failure> {
        use ResourceKind as K;
        let Ports { process, net, disk, .. } = &self.ports;
        let gone = match kind {
            K::Process | K::Cgroup | K::Jail => process.ensure_gone(op, vm).await.map(drop),
            K::Device => disk.close_root(op, vm).await,
            K::RunDir => disk.remove_run_dir(op, vm).await,
            K::VmDir => disk.remove_vm(op, vm).await,
            K::Config => disk.remove_config(op, vm).await,
            K::Memory => disk.remove_saved(op, vm).await,
            K::Nat => match name.parse() {
                Ok(address) => net.remove_nat(op, vm, address).await,
                Err(_) => Ok(()),
            },
            K::Tap | K::Loop | K::Leftover => Ok(()),
        };
        gone.map_err(|error| Failure::from(&error))?;
        let struck = self.inventory.store.change_ledger(LedgerChange::Gone(vm, kind)).await;
        struck.map(|()| String::new()).map_err(|error| Failure::from(&error))
    }

    /// What holds data of a VM gets the row that it lacks.
    async fn record(&self, op: OpId, mismatch: &Mismatch, vm: VmId) -> Result<String, Failure> {
        let (kind, name) = (mismatch.thing.kind, mismatch.thing.name.clone());
        let unix_ms = self.ports.clock.unix_ms();
        let row = LedgerRow { vm, kind, name, op: Some(op), unix_ms };
        let written = self.inventory.store.change_ledger(LedgerChange::Made(row)).await;
        written.map(|()| "row written".to_owned()).map_err(|error| Failure::from(&error))
    }

    /// An operation of the VM's own, so that nothing else happens to it meanwhile.
    async fn by_its_owner(
        &self,
        op: OpId,
        vm: VmId,
        kind: ResourceKind,
    ) -> Result<String, Failure> {
        let own = self.mint.op();
        let find = FindVm(vm.to_string());
        let found = self.supervisor.call(ctx(op), find).await?;
        let request = OpRequest::Collect(kind);
        let cmd = RunOp { request, request_hash: 0, by: Asker::Host };
        let mut ticket = found.handle?.call(ctx(own), cmd).await?;
        let ended = ticket.end().await;
        match ended.as_ref().map(|ended| (&ended.op.outcome, &ended.failure)) {
            Some((Some(Outcome::Done | Outcome::Unchanged(_)), _)) => Ok(format!("by {own}")),
            Some((_, Some(failure))) => Err(failure.clone()),
            _ => Err(Failure::new(Code::Internal, format!("{own} was cut short"))),
        }
    }
}

fn ctx(op: OpId) -> OpCtx {
    OpCtx::within(op, CALL_LIMIT)
}

fn done<T>(result: Result<T, crate::ports::HostError>) -> Result<String, Failure> {
    result.map(|_| String::new()).map_err(|error| Failure::from(&error))
}

/// In the journal: what is done to what.
fn step_of(mismatch: &Mismatch) -> String {
    let thing = &mismatch.thing;
    format!("{} {} {}", mismatch.cure.as_str(), thing.kind, thing.name)
}
