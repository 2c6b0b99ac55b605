//! Looks at the host's network every few seconds, and makes it again as it should be.
//!
//! ```text
//! survey ─ no answer ─> running VMs are `no-helper`, until it answers
//!    └ amiss ─ bridge, table, forwarding ─> made again
//!            ├ free taps, taps off the bridge ─> the pool mends them
//!            ├ rules of VMs ─> given again, or taken from who has none to have
//!            └ a running VM's tap is gone ─> `network`: its VMM cannot be given another
//! ```
//!
//! Everything asked of the helper bears being asked twice, and what is wrong is found anew at each
//! look, so nothing here is durable. What must not be done here: touch what somebody else made.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;

use super::envelope::OpCtx;
use super::events::EventSink;
use super::handle::Handle;
use super::mint::Mint;
use super::service::{self, DeathBell};
use super::supervisor::{FindVm, ListVms, SupervisorActor};
use super::tap_pool::{Mend, TapPoolHandle};
use super::vm::Observe;
use crate::model::{
    Code, ConditionKind, EventKind, Finding, NetAmiss, NetOf, NetSeen, OpId, VmId, VmState, VmView,
    chain,
};
use crate::ports::{HostError, NetHost};

/// What cannot be repaired is tried less and less often.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// So many looks in a row must agree before a VM is said to have lost something.
const SURE: u32 = 2;

/// How the network was at the last look, for those who ask.
#[derive(Clone, Debug, Default)]
pub struct NetHealth {
    /// What is wrong and could not be repaired.
    pub problem: Option<String>,
    /// See [`NetSeen::drops`].
    pub drops: Vec<String>,
    /// The helper's version, if it has said.
    pub helper: Option<String>,
}

/// What the watch needs; the same for every incarnation.
#[derive(Debug)]
pub struct NetWatchDeps {
    pub net: Arc<dyn NetHost>,
    pub taps: TapPoolHandle,
    pub supervisor: Handle<SupervisorActor>,
    pub events: EventSink,
    pub mint: Mint,
    pub health: watch::Sender<NetHealth>,
    /// Its name, for users.
    pub bridge: String,
    /// The pause between two looks.
    pub every: Duration,
}

#[derive(Debug)]
pub struct NetWatchActor {
    bell: DeathBell,
    deps: Arc<NetWatchDeps>,
    memory: Memory,
}

/// From one look to the next.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Looks in a row that the helper did not answer.
    unanswered: u32,
    /// Repairs in a row that failed.
    failed: u32,
    /// As the last look found it.
    amiss: NetAmiss,
    /// The last thing that was told of what all VMs share.
    told: Option<String>,
    drops: Vec<String>,
}

impl NetWatchActor {
    pub fn launch(deps: NetWatchDeps) -> Handle<Self> {
        let deps = Arc::new(deps);
        service::keep("net-watch", 1, Some(deps.events.clone()), move |bell| {
            let told = deps.health.borrow().problem.clone();
            let memory = Memory { told, ..Memory::default() };
            Self { bell, deps: Arc::clone(&deps), memory }.start()
        })
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let (deps, mut memory) = (Arc::clone(&self.deps), self.memory.clone());
        let looking = async move {
            deps.look(&mut memory).await;
            memory
        };
        ctx.spawn(looking.into_actor(self).map(|memory, act, ctx| {
            let pause = act.deps.every.saturating_mul(2_u32.saturating_pow(memory.failed));
            act.memory = memory;
            ctx.run_later(pause.min(LONGEST_PAUSE), Self::look);
        }));
    }
}

impl Actor for NetWatchActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl NetWatchDeps {
    async fn look(&self, memory: &mut Memory) {
        let op = self.mint.op();
        let seen = self.net.survey(op).await;
        let Ok(views) = self.supervisor.call(ctx(op), ListVms).await else { return };
        let running = views.iter().filter(|view| view.record.state == VmState::Running);
        let running: Vec<_> = running.filter(|view| view.busy.is_none()).collect();
        match seen {
            Err(error) => {
                memory.unanswered = memory.unanswered.saturating_add(1);
                if memory.unanswered < SURE {
                    return;
                }
                self.tell(memory, Some(format!("the network is not watched: {}", chain(&error))));
                for view in running {
                    self.observe(op, view, ConditionKind::NoHelper, Some(away(&error))).await;
                }
            }
            Ok(seen) => {
                memory.unanswered = 0;
                for view in &running {
                    self.observe(op, view, ConditionKind::NoHelper, None).await;
                }
                let busy = views.iter().filter(|view| view.busy.is_some());
                let busy: Vec<_> = busy.map(|view| view.record.id).collect();
                self.mend(op, memory, seen, &running, &busy).await;
            }
        }
    }

    async fn mend(
        &self,
        op: OpId,
        memory: &mut Memory,
        seen: NetSeen,
        running: &[&VmView],
        busy: &[VmId],
    ) {
        let wanted: Vec<_> = running.iter().filter_map(|view| net_of(view)).collect();
        let amiss = seen.amiss(&wanted, busy);
        let before = std::mem::replace(&mut memory.amiss, amiss.clone());
        let shared = self.mend_shared(op, memory, &amiss).await;
        self.mend_taps(op, &seen, &amiss, running).await;
        self.mend_nat(op, &amiss, &before, running).await;
        for view in running {
            let (vm, name) = (view.record.id, &view.record.spec.name);
            let lost = amiss.lost.contains(&vm) && before.lost.contains(&vm);
            let tap = view.handles.tap.as_ref().map(ToString::to_string).unwrap_or_default();
            let found = match &shared {
                _ if lost => Some(Finding {
                    reason: format!("its tap {tap} is gone, and a VMM cannot be given another"),
                    exit: format!("`banger vm restart {name}` gives it a new one"),
                }),
                Some(problem) => Some(Finding {
                    reason: problem.clone(),
                    exit: "it is tried again; `banger doctor` says what is in the way".to_owned(),
                }),
                None => None,
            };
            self.observe(op, view, ConditionKind::Network, found).await;
        }
        let nat = running.iter().any(|view| view.record.spec.nat);
        if nat && !seen.drops.is_empty() && seen.drops != memory.drops {
            self.note(op, drops_said(&self.bridge, &seen.drops));
        }
        memory.drops.clone_from(&seen.drops);
        self.health.send_modify(|health| {
            (health.drops, health.helper) = (seen.drops, Some(seen.helper));
        });
    }

    /// The error is what stays wrong.
    async fn mend_shared(&self, op: OpId, memory: &mut Memory, amiss: &NetAmiss) -> Option<String> {
        let mut problem = None;
        if !amiss.shared.is_empty() {
            let what = amiss.shared.join(", ");
            match self.net.ensure_bridge(op).await {
                Ok(()) => self.note(op, format!("found missing and made again: {what}")),
                Err(error) => {
                    problem = Some(format!("{what} cannot be made again: {}", chain(&error)));
                }
            }
        }
        memory.failed = if problem.is_some() { memory.failed.saturating_add(1) } else { 0 };
        self.tell(memory, problem.clone());
        problem
    }

    async fn mend_taps(&self, op: OpId, seen: &NetSeen, amiss: &NetAmiss, running: &[&VmView]) {
        let mend = Mend { seen: seen.taps.clone(), loose: amiss.loose.clone() };
        match self.taps.mend(op, mend).await {
            Ok(vms) if vms.is_empty() => {}
            Ok(vms) => self.note(op, format!("put on the bridge again: {}", names(&vms, running))),
            Err(error) => tracing::warn!(%error, "taps not looked after"),
        }
    }

    /// A rule may have been taken away by the end of its VM since it was seen, and a stray one given
    /// by the beginning: both are as they should be at the next look.
    async fn mend_nat(&self, op: OpId, amiss: &NetAmiss, before: &NetAmiss, running: &[&VmView]) {
        let mut given = vec![];
        for (vm, address) in &amiss.nat {
            match self.net.ensure_nat(op, *vm, *address).await {
                Ok(()) => given.push(*vm),
                Err(error) => tracing::warn!(vm_id = %vm, error = %chain(&error), "no NAT given"),
            }
        }
        if !given.is_empty() {
            self.note(op, format!("NAT given again to: {}", names(&given, running)));
        }
        for (vm, address) in amiss.stray.iter().filter(|stray| before.stray.contains(stray)) {
            tracing::warn!(vm_id = %vm, %address, "a rule of nobody is taken away");
            if let Err(error) = self.net.remove_nat(op, *vm, *address).await {
                tracing::warn!(vm_id = %vm, error = %chain(&error), "rule not taken away");
            }
        }
    }

    /// Only what is new to it is told to a VM.
    async fn observe(&self, op: OpId, view: &VmView, kind: ConditionKind, found: Option<Finding>) {
        let known = view.conditions.iter().any(|condition| condition.kind == kind);
        if known == found.is_some() {
            return;
        }
        let find = FindVm(view.record.id.to_string());
        let Ok(handle) = self.supervisor.call(ctx(op), find).await.and_then(|it| it.handle) else {
            return; // it is told at the next look, if it is still there
        };
        drop(handle.call(ctx(op), Observe { kind, found }).await);
    }

    fn tell(&self, memory: &mut Memory, problem: Option<String>) {
        if memory.told == problem {
            return;
        }
        match &problem {
            Some(text) => self.note(self.mint.op(), text.clone()),
            None => self.note(self.mint.op(), "the network is as it should be again".to_owned()),
        }
        self.health.send_modify(|health| health.problem.clone_from(&problem));
        memory.told = problem;
    }

    fn note(&self, op: OpId, text: String) {
        tracing::warn!(op_id = %op, text, "network watched");
        self.events.publish(Some(op), None, EventKind::Note { text });
    }
}

fn ctx(op: OpId) -> OpCtx {
    OpCtx::within(op, CALL_LIMIT)
}

fn net_of(view: &VmView) -> Option<NetOf> {
    let (record, tap) = (&view.record, view.handles.tap.clone()?);
    Some(NetOf { vm: record.id, tap, address: record.address, nat: record.spec.nat })
}

fn names(vms: &[VmId], views: &[&VmView]) -> String {
    let named = views.iter().filter(|view| vms.contains(&view.record.id));
    named.map(|view| view.record.spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn away(error: &HostError) -> Finding {
    let exit = match error.code {
        Code::Protocol => {
            let version = env!("CARGO_PKG_VERSION");
            format!("this daemon is of version {version}: install both of one, restart both")
        }
        _ => "`systemctl restart banger-helper` as root; the VM itself runs on".to_owned(),
    };
    Finding { reason: chain(error), exit }
}

/// Shared with the doctor.
#[must_use]
pub fn drops_said(bridge: &str, drops: &[String]) -> String {
    format!(
        "{} drops what no rule of it accepts, and so perhaps what guests with NAT send; with Docker, \
         `iptables -I DOCKER-USER -i {bridge} -j ACCEPT` and the same with -o let it pass",
        drops.join(", ")
    )
}
