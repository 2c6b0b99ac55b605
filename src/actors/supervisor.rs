//! The parent of all VM actors: reserves new VMs, builds their actors, notices that one is down and
//! rebuilds it from the store.
//!
//! Never actix's own `Supervisor`: it does not restart after a panic, and after a stop it
//! restarts the same struct at once and without limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::envelope::{CallError, Command, OpCtx, Req};
use super::handle::Handle;
use super::vm::{Ended, OpRequest, RunOp, Ticket, VmActor, VmDeps, VmScope};
use super::watch::{ChildDown, RestartBudget, Verdict};
use crate::model::{
    Code, EventKind, Failure, HostBudget, Incarnation, Name, OpId, OpKind, OpRecord, Size,
    VmHandles, VmId, VmRecord, VmSpec, VmState, VmView, admit,
};
use crate::store::{Reserved, VmDraft};

const VM_SLOTS: usize = 8;
pub(super) const SLOTS: usize = 4096;

/// Fixed limits of the host, for admission.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    pub memory_mib: u64,
    pub cpus: u32,
    pub disk_reserve: Size,
    pub max_vms: usize,
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
}

#[derive(Debug)]
struct Child {
    state: ChildState,
    incarnation: Incarnation,
    budget: RestartBudget,
    scope: VmScope,
}

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
    pub spec: VmSpec,
    pub start: bool,
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

/// Whether the host has memory for this VM to run beside those that do.
#[derive(Clone, Debug)]
pub struct CheckStart(pub String);

impl Command for CheckStart {
    type Reply = ();
    const NAME: &'static str = "supervisor.check-start";
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
        let (admitting_mib, admitting) = (0, 0);
        let actor = Self { deps, host, tasks, cancel, children, names, admitting_mib, admitting };
        Handle::new(actor.start(), SLOTS)
    }

    fn add(
        &mut self,
        record: VmRecord,
        handles: VmHandles,
        ctx: &Context<Self>,
    ) -> Handle<VmActor> {
        let (vm, name) = (record.id, record.spec.name.clone());
        let view = VmView { record, handles, generation: 0, busy: None };
        let scope = VmScope {
            vm,
            tasks: TaskTracker::new(),
            cancel: self.cancel.child_token(),
            view: Arc::new(watch::channel(view).0),
            parent: ctx.address().downgrade().recipient(),
            deps: Arc::clone(&self.deps),
        };
        let incarnation = Incarnation(1);
        let handle = build(&scope, incarnation);
        let state = ChildState::Up(handle.clone());
        let child = Child { state, incarnation, budget: RestartBudget::default(), scope };
        self.names.insert(name, vm);
        self.children.insert(vm, child);
        handle
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

    fn budget(&self, disk_free: Size, addresses_left: usize) -> HostBudget {
        let takes_memory = |child: &Child| {
            let record = &child.scope.view.borrow().record;
            if is_on(record.state) { u64::from(record.spec.memory_mib) } else { 0 }
        };
        HostBudget {
            memory_mib: self.host.memory_mib,
            memory_committed_mib: self.children.values().map(takes_memory).sum::<u64>()
                + self.admitting_mib,
            cpus: self.host.cpus,
            disk_free,
            disk_reserve: self.host.disk_reserve,
            addresses_left,
            vms: self.children.len() + self.admitting,
            max_vms: self.host.max_vms,
        }
    }

    /// Checks what can be checked at once and counts the VM in, so that others admitted at the same
    /// time see it.
    fn admit(&mut self, spec: &VmSpec, start: bool) -> Result<u64, Failure> {
        spec.check().map_err(|error| Failure::from_error(Code::Invalid, &error))?;
        let mut budget = self.budget(Size::from_bytes(u64::MAX), 1);
        // A sum over all VMs is needed only if this one adds to it.
        if !start {
            budget.memory_committed_mib = 0;
        }
        admit(spec, &budget, start).map_err(|refusal| {
            Failure::new(Code::Refused, format!("create {}: {refusal}", spec.name))
        })?;
        let counted = if start { u64::from(spec.memory_mib) } else { 0 };
        self.admitting_mib += counted;
        self.admitting += 1;
        Ok(counted)
    }
}

/// Whether a VM in this state takes memory.
fn is_on(state: VmState) -> bool {
    matches!(state, VmState::Starting | VmState::Running | VmState::Stopping)
}

fn unknown(text: &str) -> Failure {
    Failure::new(Code::NotFound, format!("no VM is named {text:?}"))
        .hint("`banger vm list` shows what exists")
}

/// Builds a fresh actor. Everything it starts from is passed in or read from the store.
fn build(scope: &VmScope, incarnation: Incarnation) -> Handle<VmActor> {
    Handle::new(VmActor::new(scope.clone(), incarnation).start(), VM_SLOTS)
}

/// Keys, free disk, then the reservation: the part of a creation that waits.
async fn reserve(
    deps: Arc<VmDeps>,
    reserve_bytes: Size,
    op_id: OpId,
    create: CreateVm,
) -> Result<Reserved, Failure> {
    let ports = &deps.ports;
    let keys = ports.guest.make_keys().await.map_err(|error| Failure::from(&error))?;
    let free = ports.disk.free().await.map_err(|error| Failure::from(&error))?;
    if free < reserve_bytes {
        let refusal = crate::model::Refusal::Disk { free, reserve: reserve_bytes };
        let message = format!("create {}: {refusal}", create.spec.name);
        return Err(Failure::new(Code::NoSpace, message));
    }
    // A VMM that cannot be had is refused before anything is made.
    let vmm = ports.hypervisor.describe(create.spec.vmm).await;
    vmm.map_err(|error| Failure::from(&error))?;
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
    let draft = VmDraft { id: vm, spec: create.spec, keys, created_unix_ms: now, subnet, intent };
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
    type Result = ResponseActFuture<Self, Result<Ticket, CallError>>;

    fn handle(&mut self, req: Req<CreateVm>, _: &mut Self::Context) -> Self::Result {
        let Req { ctx: call, cmd: create, .. } = req;
        let counted = match self.admit(&create.spec, create.start) {
            Ok(counted) => counted,
            Err(failure) => return Box::pin(fut::ready(Err(failure.of(call.op_id).into()))),
        };
        let (deps, reserve_bytes) = (Arc::clone(&self.deps), self.host.disk_reserve);
        let request = OpRequest::Create { start: create.start };
        let cmd = RunOp { request, request_hash: create.request_hash };
        // Spawned, so that a reservation begun is also handed over when the caller has gone.
        let reserving = self.tasks.spawn(reserve(deps, reserve_bytes, call.op_id, create));
        let handed_over = reserving.into_actor(self).map(move |reserved, act, ctx| {
            act.admitting_mib -= counted;
            act.admitting -= 1;
            let reserved = reserved.unwrap_or_else(|error| {
                Err(Failure::new(Code::Internal, format!("reserve the VM: {error}")))
            });
            match reserved {
                Ok(Reserved::New(record)) => Ok(Some(act.add(*record, VmHandles::default(), ctx))),
                Ok(Reserved::Known(op)) => match op.vm.and_then(|vm| act.children.get(&vm)) {
                    Some(Child { state: ChildState::Up(vm), .. }) if op.outcome.is_none() => {
                        Ok(Some(vm.clone()))
                    }
                    _ => Err(Ok(Ticket::settled(Ended { op, failure: None, view: None }))),
                },
                Err(failure) => Err(Err(CallError::from(failure.of(call.op_id)))),
            }
            .map(|vm| (vm, call))
        });
        Box::pin(handed_over.then(move |reserved, act, _| {
            let asking = async move {
                match reserved {
                    Ok((Some(vm), call)) => vm.call(call, cmd).await,
                    Ok((None, _)) => Err(CallError::Gone),
                    Err(answer) => answer,
                }
            };
            asking.into_actor(act)
        }))
    }
}

impl Handler<Req<FindVm>> for SupervisorActor {
    type Result = Result<Found, CallError>;

    fn handle(&mut self, req: Req<FindVm>, _: &mut Self::Context) -> Self::Result {
        let OpCtx { op_id, .. } = req.ctx;
        let vm = self.resolve(&req.cmd.0).map_err(|failure| failure.of(op_id))?;
        // A delete that has ended is the truth, though its actor may not have heard of it yet.
        let known = self.deps.store.has_vm(vm);
        let Some(child) = self.children.get(&vm).filter(|_| known) else {
            return Err(unknown(&req.cmd.0).of(op_id).into());
        };
        let handle = match &child.state {
            ChildState::Up(handle) => Ok(handle.clone()),
            ChildState::Rebuilding => Err(CallError::Gone),
            ChildState::Quarantined => {
                let message = format!("the actor of {} died too often and stays down", req.cmd.0);
                let failure = Failure::new(Code::Internal, message);
                Err(failure.hint("restart bangerd; the VM itself runs on").of(op_id).into())
            }
        };
        Ok(Found { handle, view: child.scope.view.borrow().clone() })
    }
}

impl Handler<Req<CheckStart>> for SupervisorActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, req: Req<CheckStart>, _: &mut Self::Context) -> Self::Result {
        let OpCtx { op_id, .. } = req.ctx;
        let vm = self.resolve(&req.cmd.0).map_err(|failure| failure.of(op_id))?;
        let Some(child) = self.children.get(&vm) else { return Ok(()) };
        let record = child.scope.view.borrow().record.clone();
        if is_on(record.state) {
            return Ok(()); // it is counted already
        }
        // The VM exists, so neither its address nor its place in the count is asked for again.
        let budget = HostBudget { vms: 0, ..self.budget(Size::from_bytes(u64::MAX), 1) };
        admit(&record.spec, &budget, true).map_err(|refusal| {
            let message = format!("start {}: {refusal}", record.spec.name);
            Failure::new(Code::Refused, message).of(op_id).into()
        })
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
