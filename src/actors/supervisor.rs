//! The parent of all VM actors: reserves new VMs, builds their actors, notices that one is down and
//! rebuilds it from the store.
//!
//! Never actix's own `Supervisor`: it does not restart after a panic, and after a stop it
//! restarts the same struct at once and without limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::envelope::{CallError, Command, OpCtx, Req};
use super::handle::Handle;
use super::kernels;
use super::starts::Starts;
use super::vm::{Asker, Ended, OpRequest, RunOp, Ticket, VmActor, VmDeps, VmScope};
use super::watch::{ChildDown, RestartBudget, Verdict};
use crate::model::{
    Code, DiskChoice, EventKind, Failure, HostBudget, Incarnation, Name, OpId, OpKind, OpRecord,
    Size, VmHandles, VmId, VmRecord, VmSpec, VmState, VmView, Wanted, admit,
};
use crate::store::{Reserved, Store, VmDraft};

const VM_SLOTS: usize = 8;
pub(super) const SLOTS: usize = 4096;

/// Fixed limits of the host, for admission.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    pub memory_mib: u64,
    /// What a VMM needs besides its guest's memory.
    pub overhead_mib: u64,
    pub cpus: u32,
    pub disk_reserve: Size,
    pub max_vms: usize,
    /// Starts by restart policies at one time.
    pub parallel_starts: usize,
}

#[derive(Debug)]
pub struct SupervisorActor {
    deps: Arc<VmDeps>,
    host: HostLimits,
    tasks: TaskTracker,
    cancel: CancellationToken,
    children: HashMap<VmId, Child>,
    names: BTreeMap<Name, VmId>,
    /// Memory of VMs that are admitted and not yet children.
    admitting_mib: u64,
    admitting: usize,
    pub(super) starts: Starts,
}

#[derive(Debug)]
struct Child {
    state: ChildState,
    incarnation: Incarnation,
    budget: RestartBudget,
    scope: VmScope,
    /// Operations that were admitted to bring it up and are not in its view yet.
    admitted: usize,
}

/// Only waits, so dropping it harms nothing.
pub(super) type Answering<T> = ResponseActFuture<SupervisorActor, Result<T, CallError>>;

#[derive(Debug)]
enum ChildState {
    Up(Handle<VmActor>),
    Rebuilding,
    Quarantined,
}

/// Takes charge of VMs that the store knows; called once, before the daemon listens.
#[derive(Debug)]
pub struct Adopt(pub Vec<(VmRecord, VmHandles)>);

impl Command for Adopt {
    type Reply = ();
    const NAME: &'static str = "supervisor.adopt";
}

/// Reserves a VM and starts its creation.
#[derive(Debug)]
pub struct CreateVm {
    /// Its root disk is settled by what `disk` asks for.
    pub spec: VmSpec,
    pub disk: DiskChoice,
    pub start: bool,
    /// The program of its image runs from every start on.
    pub runs: bool,
    pub request_hash: u64,
}

impl Command for CreateVm {
    type Reply = Ticket;
    const NAME: &'static str = "supervisor.create-vm";
}

/// By name, id or unique prefix of an id (four digits at least).
#[derive(Clone, Debug)]
pub struct FindVm(pub String);

impl Command for FindVm {
    type Reply = Found;
    const NAME: &'static str = "supervisor.find-vm";
}

/// A handle is for one call, not for keeping.
#[derive(Debug)]
pub struct Found {
    pub handle: Result<Handle<VmActor>, CallError>,
    pub view: VmView,
}

/// An operation that leaves the VM running, if the host has memory for it beside those that run.
/// Its memory counts from the moment it is admitted.
#[derive(Clone, Debug)]
pub struct BringUp {
    pub vm: String,
    pub cmd: RunOp,
}

impl Command for BringUp {
    type Reply = Ticket;
    const NAME: &'static str = "supervisor.bring-up";
}

/// Builds the actor of a VM anew that died too often, as if it had not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revive(pub(super) VmId);

impl Command for Revive {
    type Reply = ();
    const NAME: &'static str = "supervisor.revive";
}

/// Every VM, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct ListVms;

impl Command for ListVms {
    type Reply = Vec<VmView>;
    const NAME: &'static str = "supervisor.list-vms";
}

impl SupervisorActor {
    #[must_use]
    pub fn launch(
        deps: Arc<VmDeps>,
        host: HostLimits,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Handle<Self> {
        let (children, names) = (HashMap::new(), BTreeMap::new());
        let actor = Self {
            deps,
            host,
            tasks,
            cancel,
            children,
            names,
            admitting_mib: 0,
            admitting: 0,
            starts: Starts::default(),
        };
        Handle::new(actor.start(), SLOTS)
    }

    fn add(&mut self, record: VmRecord, handles: VmHandles, ctx: &Context<Self>) {
        let (vm, name) = (record.id, record.spec.name.clone());
        let view =
            VmView { record, handles, generation: 0, busy: None, conditions: vec![], health: None };
        let scope = VmScope {
            vm,
            tasks: TaskTracker::new(),
            cancel: self.cancel.child_token(),
            view: Arc::new(watch::channel(view).0),
            parent: ctx.address().downgrade().recipient(),
            starter: ctx.address().downgrade().recipient(),
            deps: Arc::clone(&self.deps),
        };
        let incarnation = Incarnation(1);
        let state = ChildState::Up(build(&scope, incarnation));
        let budget = RestartBudget::default();
        let child = Child { state, incarnation, budget, scope, admitted: 0 };
        self.names.insert(name, vm);
        self.children.insert(vm, child);
    }

    /// After a death the store decides whether there is anything to rebuild.
    fn rebuild(&mut self, vm: VmId) {
        let known = self.deps.store.vm(vm);
        let Some(child) = self.children.get_mut(&vm) else { return };
        if let Ok(None) = known {
            return self.forget(vm);
        }
        child.scope.tasks.reopen();
        child.incarnation = child.incarnation.next();
        child.state = ChildState::Up(build(&child.scope, child.incarnation));
        let (actor, incarnation) = (format!("vm {}", vm.short()), child.incarnation.0);
        self.deps.events.publish(None, Some(vm), EventKind::ActorRebuilt { actor, incarnation });
    }

    fn forget(&mut self, vm: VmId) {
        self.children.remove(&vm);
        self.names.retain(|_, id| *id != vm);
    }

    fn resolve(&self, text: &str) -> Result<VmId, Failure> {
        let named = Name::vm(text).ok().and_then(|name| self.names.get(&name)).copied();
        if let Some(vm) =
            named.or_else(|| text.parse().ok().filter(|id| self.children.contains_key(id)))
        {
            return Ok(vm);
        }
        let hex = text.len() >= 4 && text.chars().all(|c| c.is_ascii_hexdigit());
        let starts = |vm: &&VmId| hex && vm.to_string().starts_with(text);
        let mut matches = self.children.keys().filter(starts);
        match (matches.next(), matches.next()) {
            (Some(vm), None) => Ok(*vm),
            (Some(_), Some(_)) => {
                Err(Failure::new(Code::Invalid, format!("{text:?} is the start of several ids"))
                    .hint("give more digits, or the name"))
            }
            (None, _) => Err(unknown(text)),
        }
    }

    fn find(&self, text: &str) -> Result<Found, CallError> {
        let vm = self.resolve(text)?;
        // A delete that has ended is the truth, though its actor may not have heard of it yet.
        let known = self.deps.store.has_vm(vm);
        let child = self.children.get(&vm).filter(|_| known).ok_or_else(|| unknown(text))?;
        let handle = match &child.state {
            ChildState::Up(handle) => Ok(handle.clone()),
            ChildState::Rebuilding => Err(CallError::Gone),
            ChildState::Quarantined => {
                let message = format!("the actor of {text} died too often and stays down");
                let failure = Failure::new(Code::Internal, message);
                let hint =
                    format!("`banger vm recover {text}` builds it anew; the VM itself runs on");
                Err(failure.hint(hint).into())
            }
        };
        Ok(Found { handle, view: child.scope.view.borrow().clone() })
    }

    fn budget(&self) -> HostBudget {
        let takes_memory = |child: &Child| {
            let record = &child.scope.view.borrow().record;
            let counts = child.admitted > 0 || is_on(record.state);
            if counts { self.memory_of(&record.spec) } else { 0 }
        };
        HostBudget {
            memory_mib: self.host.memory_mib,
            memory_committed_mib: self.children.values().map(takes_memory).sum::<u64>()
                + self.admitting_mib,
            overhead_mib: self.host.overhead_mib,
            cpus: self.host.cpus,
            vms: self.children.len() + self.admitting,
            max_vms: self.host.max_vms,
        }
    }

    fn memory_of(&self, spec: &VmSpec) -> u64 {
        u64::from(spec.memory_mib) + self.host.overhead_mib
    }

    /// Checks what can be checked at once and counts the VM in, so that others admitted at the same
    /// time see it. Answers with the memory it counted.
    fn admit(&mut self, op: OpId, spec: &VmSpec, start: bool) -> Result<u64, Failure> {
        if is_known(&self.deps.store, op) {
            self.admitting += 1;
            return Ok(0);
        }
        spec.check().map_err(|error| Failure::from_error(Code::Invalid, &error))?;
        let mut budget = self.budget();
        // A sum over all VMs is needed only if this one adds to it.
        if !start {
            budget.memory_committed_mib = 0;
        }
        admit(spec, &budget, start).map_err(|refusal| {
            Failure::new(Code::Refused, format!("create {}: {refusal}", spec.name))
        })?;
        let counted = if start { self.memory_of(spec) } else { 0 };
        self.admitting_mib += counted;
        self.admitting += 1;
        Ok(counted)
    }

    pub(super) fn parallel_starts(&self) -> usize {
        self.host.parallel_starts.max(1)
    }

    pub(super) fn new_op(&self) -> OpId {
        self.deps.mint.op()
    }

    pub(super) fn grace(&self) -> Duration {
        self.deps.settings.grace
    }

    /// The VM as published, if its actor is up, this one, and does nothing.
    pub(super) fn view_of_idle(&self, vm: VmId, incarnation: Incarnation) -> Option<VmView> {
        let child = self.children.get(&vm)?;
        let up = matches!(child.state, ChildState::Up(_)) && child.incarnation == incarnation;
        let view = child.scope.view.borrow();
        (up && view.busy.is_none()).then(|| view.clone())
    }

    pub(super) fn admit_start(&self, op: OpId, view: &VmView) -> Result<(), Failure> {
        let VmRecord { id, spec, state, .. } = &view.record;
        let counted = is_on(*state) || self.children.get(id).is_some_and(|vm| vm.admitted > 0);
        if counted || is_known(&self.deps.store, op) {
            return Ok(());
        }
        // The VM exists: its place in the count is not asked for again.
        let budget = HostBudget { vms: 0, ..self.budget() };
        admit(spec, &budget, true).map_err(|refusal| {
            Failure::new(Code::Refused, format!("start {}: {refusal}", spec.name))
        })
    }

    /// Hands an admitted operation to the VM, whose memory counts here until its view tells that it
    /// starts.
    pub(super) fn bring_up(&mut self, vm: VmId, call: OpCtx, cmd: RunOp) -> Answering<Ticket> {
        let Some(Child { state: ChildState::Up(handle), admitted, .. }) =
            self.children.get_mut(&vm)
        else {
            return Box::pin(fut::ready(Err(CallError::Gone)));
        };
        *admitted += 1;
        let handle = handle.clone();
        let asking = async move { handle.call(call, cmd).await };
        Box::pin(asking.into_actor(self).map(move |answer, act, _| {
            if let Some(child) = act.children.get_mut(&vm) {
                child.admitted -= 1;
            }
            answer
        }))
    }

    /// The VM that a creation goes on with, or what became of one that was asked for before.
    fn take_charge(&mut self, reserved: Reserved, ctx: &Context<Self>) -> Result<VmId, Ticket> {
        let op = match reserved {
            Reserved::New(record) => {
                let vm = record.id;
                self.add(*record, VmHandles::default(), ctx);
                return Ok(vm);
            }
            Reserved::Known(op) => op,
        };
        match op.vm.and_then(|vm| self.children.get(&vm)) {
            Some(child) if op.outcome.is_none() => Ok(child.scope.vm),
            child => {
                let view = child.map(|child| child.scope.view.borrow().clone());
                Err(Ticket::settled(Ended { op, failure: None, view }))
            }
        }
    }
}

/// Whether a VM in this state takes memory.
fn is_on(state: VmState) -> bool {
    use VmState as S;
    matches!(state, S::Starting | S::Running | S::Stopping | S::Suspending)
}

fn unknown(text: &str) -> Failure {
    Failure::new(Code::NotFound, format!("no VM is named {text:?}"))
        .hint("`banger vm list` shows what exists")
}

/// Whether this operation has begun before. Then there is room for it: it may be what fills the
/// host, and a retry is answered with what is known.
fn is_known(store: &Store, op: OpId) -> bool {
    matches!(store.op(op), Ok(Some(_)))
}

/// Builds a fresh actor. Everything it starts from is passed in or read from the store.
fn build(scope: &VmScope, incarnation: Incarnation) -> Handle<VmActor> {
    Handle::new(VmActor::new(scope.clone(), incarnation).start(), VM_SLOTS)
}

/// Without such an image the reservation will say so.
async fn settle_root(deps: &VmDeps, op_id: OpId, create: &mut CreateVm) -> Result<(), Failure> {
    let image = deps.store.image(&create.spec.image).map_err(|error| Failure::from(&error))?;
    if let Some(image) = image {
        let base = deps.ports.images.base(op_id, image.digest).await;
        let base = base.map_err(|error| Failure::from(&error))?;
        let root = deps.ports.disk.choose(op_id, create.disk, &base).await;
        let root = root.map_err(|error| Failure::from(&error))?;
        create.spec.root = crate::model::settle_root(create.disk, root, create.spec.warm);
    }
    Ok(())
}

/// Keys, free disk, then the reservation: the part of a creation that waits.
async fn reserve(
    deps: Arc<VmDeps>,
    reserve_bytes: Size,
    op_id: OpId,
    mut create: CreateVm,
) -> Result<Reserved, Failure> {
    let ports = &deps.ports;
    let keys = ports.guest.make_keys().await.map_err(|error| Failure::from(&error))?;
    if !is_known(&deps.store, op_id) {
        let free = ports.disk.free().await.map_err(|error| Failure::from(&error))?;
        if free < reserve_bytes {
            let refusal = crate::model::Refusal::Disk { free, reserve: reserve_bytes };
            let message = format!("create {}: {refusal}", create.spec.name);
            return Err(Failure::new(Code::NoSpace, message));
        }
        // A VMM that cannot be had is refused before anything is made, and a kernel that would not boot.
        let vmm = ports.hypervisor.describe(create.spec.vmm).await;
        let vmm = vmm.map_err(|error| Failure::from(&error))?;
        settle_root(&deps, op_id, &mut create).await?;
        kernels::admit(&deps.store, &create.spec, vmm.kind)?;
    }
    let now = ports.clock.unix_ms();
    let vm = deps.mint.vm();
    let intent = OpRecord {
        id: op_id,
        kind: OpKind::CreateVm,
        vm: Some(vm),
        subject: create.spec.name.to_string(),
        request_hash: create.request_hash,
        started_unix_ms: now,
        ended_unix_ms: None,
        outcome: None,
    };
    let subnet = deps.settings.subnet;
    let wanted = if create.start { Wanted::Running } else { Wanted::Stopped };
    let (spec, runs, created_unix_ms) = (create.spec, create.runs, now);
    let draft = VmDraft { id: vm, spec, keys, created_unix_ms, subnet, wanted, runs, intent };
    deps.store.reserve_vm(draft).await.map_err(|error| Failure::from(&error))
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;
}

impl Handler<Req<Adopt>> for SupervisorActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, req: Req<Adopt>, ctx: &mut Self::Context) -> Self::Result {
        for (record, handles) in req.cmd.0 {
            self.add(record, handles, ctx);
        }
        Ok(())
    }
}

impl Handler<Req<CreateVm>> for SupervisorActor {
    type Result = Answering<Ticket>;

    fn handle(&mut self, req: Req<CreateVm>, _: &mut Self::Context) -> Self::Result {
        let Req { ctx: call, cmd: create, .. } = req;
        let counted = match self.admit(call.op_id, &create.spec, create.start) {
            Ok(counted) => counted,
            Err(failure) => return Box::pin(fut::ready(Err(failure.of(call.op_id).into()))),
        };
        let (deps, reserve_bytes) = (Arc::clone(&self.deps), self.host.disk_reserve);
        let request = OpRequest::Create { start: create.start };
        let (request_hash, by) = (create.request_hash, Asker::Owner);
        let cmd = RunOp { request, request_hash, by };
        // Spawned, so that a reservation begun is also handed over when the caller has gone.
        let reserving = self.tasks.spawn(reserve(deps, reserve_bytes, call.op_id, create));
        let handed_over = reserving.into_actor(self).map(move |reserved, act, ctx| {
            act.admitting_mib -= counted;
            act.admitting -= 1;
            let reserved = reserved.unwrap_or_else(|error| {
                Err(Failure::new(Code::Internal, format!("reserve the VM: {error}")))
            });
            match reserved {
                Ok(reserved) => act.take_charge(reserved, ctx).map_err(Ok),
                Err(failure) => Err(Err(CallError::from(failure.of(call.op_id)))),
            }
            .map(|vm| (vm, call))
        });
        Box::pin(handed_over.then(move |reserved, act, _| match reserved {
            Ok((vm, call)) => act.bring_up(vm, call, cmd),
            Err(answer) => Box::pin(fut::ready(answer)),
        }))
    }
}

impl Handler<Req<FindVm>> for SupervisorActor {
    type Result = Result<Found, CallError>;

    fn handle(&mut self, req: Req<FindVm>, _: &mut Self::Context) -> Self::Result {
        self.find(&req.cmd.0)
    }
}

impl Handler<Req<BringUp>> for SupervisorActor {
    type Result = Answering<Ticket>;

    fn handle(&mut self, req: Req<BringUp>, _: &mut Self::Context) -> Self::Result {
        let Req { ctx: call, cmd: BringUp { vm, cmd }, .. } = req;
        let found = self.find(&vm).and_then(|found| {
            found.handle.map(drop)?; // why it has none is worth knowing first
            self.admit_start(call.op_id, &found.view)?;
            Ok(found.view.record.id)
        });
        match found {
            Ok(vm) => self.bring_up(vm, call, cmd),
            Err(error) => Box::pin(fut::ready(Err(error))),
        }
    }
}

impl Handler<Req<Revive>> for SupervisorActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, req: Req<Revive>, _: &mut Self::Context) -> Self::Result {
        let Revive(vm) = req.cmd;
        if let Some(child) = self.children.get_mut(&vm)
            && matches!(child.state, ChildState::Quarantined)
        {
            child.budget = RestartBudget::default();
            self.rebuild(vm);
        }
        Ok(())
    }
}

impl Handler<Req<ListVms>> for SupervisorActor {
    type Result = Result<Vec<VmView>, CallError>;

    fn handle(&mut self, _: Req<ListVms>, _: &mut Self::Context) -> Self::Result {
        let known = self.children.iter().filter(|(vm, _)| self.deps.store.has_vm(**vm));
        let mut views: Vec<_> = known.map(|(_, child)| child.scope.view.borrow().clone()).collect();
        views.sort_by_key(|view| (view.record.created_unix_ms, view.record.id));
        Ok(views)
    }
}

impl Handler<ChildDown> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, down: ChildDown, ctx: &mut Self::Context) {
        let Some(child) = self.children.get_mut(&down.vm) else { return };
        if child.incarnation != down.incarnation {
            return;
        }
        if !down.panicked && matches!(self.deps.store.vm(down.vm), Ok(None)) {
            return self.forget(down.vm); // deleted: it ended as it should
        }
        tracing::error!(vm_id = %down.vm, panicked = down.panicked, "vm actor down");
        match child.budget.on_death(Instant::now()) {
            Verdict::Quarantine => {
                child.state = ChildState::Quarantined;
                let actor = format!("vm {}", down.vm.short());
                let kind = EventKind::ActorQuarantined { actor };
                self.deps.events.publish(None, Some(down.vm), kind);
            }
            Verdict::RebuildAfter(pause) => {
                child.state = ChildState::Rebuilding;
                // An operation may still run: a new actor beside it would think the VM idle.
                let tasks = child.scope.tasks.clone();
                tasks.close();
                let drained = async move {
                    tasks.wait().await;
                    tokio::time::sleep(pause).await;
                };
                ctx.spawn(drained.into_actor(self).map(move |(), act, _| act.rebuild(down.vm)));
            }
        }
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
