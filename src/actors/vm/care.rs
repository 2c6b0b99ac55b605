//! The part of a VM's actor that keeps it running: the wait until its policy starts it again, and what
//! follows from its health.

use std::time::Duration;

use actix::prelude::*;
use tokio_util::sync::DropGuard;

use super::conditions::Observe;
use super::messages::{HealthSeen, HeldBack};
use super::{VmActor, health, upkeep};
use crate::actors::watch::StartDue;
use crate::model::{
    ConditionKind, Decision, EventKind, Exit, Finding, Health, HealthCheck, HealthRun,
    HealthStatus, LONGEST_PAUSE_MS, OpId, RestartHistory, RestartPolicy, VmRecord, VmState, Wanted,
};

/// What checks a VM's health, and of which process by what.
#[derive(Debug)]
pub(super) struct Checker {
    pid: u32,
    check: HealthCheck,
    _guard: DropGuard,
}

impl VmActor {
    /// Waits for the time that the policy has set, if it has. In the actor and from the record, so that
    /// an actor or a daemon that is new goes on waiting.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        self.disarm(ctx);
        let Some(at) = self.record.restarts.next_unix_ms else { return };
        if self.record.wanted == Wanted::Stopped || self.running.is_some() {
            return;
        }
        let wait = at.saturating_sub(self.scope.deps.ports.clock.unix_ms());
        let wait = Duration::from_millis(wait.min(LONGEST_PAUSE_MS));
        self.timer = Some(ctx.run_later(wait, |act, ctx| {
            act.timer = None;
            let (vm, incarnation) = (act.scope.vm, act.incarnation);
            let held = ctx.address().downgrade().recipient();
            if let Some(starter) = act.scope.starter.upgrade() {
                starter.do_send(StartDue { vm, incarnation, held });
            }
        }));
    }

    pub(super) fn disarm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
    }

    /// Says what the policy has decided.
    pub(super) fn announce(&self, op_id: Option<OpId>, decision: Decision, now: u64) {
        if let Some(text) = upkeep::said_of(&self.record, decision, now) {
            tracing::info!(vm_id = %self.scope.vm, text, "restart policy");
            self.scope.deps.events.publish(op_id, Some(self.scope.vm), EventKind::Note { text });
        }
    }

    /// Makes what the policy has decided durable where no operation does. What an operation, or its owner's
    /// word, has written meanwhile is newer than this.
    fn keep_restarts(&self, before: RestartHistory) {
        let (store, vm) = (self.scope.deps.store.clone(), self.scope.vm);
        let now = self.scope.deps.ports.clock.unix_ms();
        let (after, failure) = (self.record.restarts.clone(), self.record.last_failure.clone());
        self.scope.tasks.spawn(async move {
            let change = move |kept: &mut VmRecord| {
                if kept.restarts == before && kept.wanted == Wanted::Running {
                    (kept.restarts, kept.last_failure) = (after, failure);
                }
            };
            if let Err(error) = store.update_vm(vm, now, change).await {
                tracing::error!(vm_id = %vm, error = %crate::model::chain(&error), "not kept");
            }
        });
    }

    /// Has the health of what runs checked, if it is to be. Goes on with what is known of the same
    /// process and check.
    pub(super) fn check_health(&mut self, ctx: &Context<Self>) {
        let process =
            self.handles.process.as_ref().filter(|_| self.record.state == VmState::Running);
        let (Some(process), Some(check)) = (process, &self.record.spec.health) else {
            if self.checker.take().is_some() {
                self.health_is(None);
            }
            return;
        };
        let same = |checker: &Checker| checker.pid == process.pid && checker.check == *check;
        if self.checker.as_ref().is_some_and(same) {
            return;
        }
        let (vm, incarnation) = (self.scope.vm, self.incarnation);
        let checked = health::Checked { vm, incarnation, check: check.clone() };
        let (mint, ports) = (self.scope.deps.mint.clone(), self.scope.deps.ports.clone());
        let guard = health::watch(checked, mint, ports, ctx.address().downgrade().recipient());
        self.checker = Some(Checker { pid: process.pid, check: check.clone(), _guard: guard });
        self.health_is(Some(Health::default()));
    }

    /// Nothing is known of it yet, or it is not asked for.
    fn health_is(&mut self, health: Option<Health>) {
        self.health = health;
        self.conditions.retain(|seen| seen.kind != ConditionKind::Unhealthy);
        self.publish();
    }

    fn became_unhealthy(&mut self, check: &HealthCheck, run: &HealthRun, now: u64) {
        let reason = format!("its health check failed {} times: {}", check.retries, run.how);
        let exit = match self.record.spec.restart {
            RestartPolicy::No => "it goes when a check succeeds",
            _ => "it goes when a check succeeds, and its policy restarts it",
        };
        let found = Finding { reason, exit: exit.to_owned() };
        self.observe(Observe { kind: ConditionKind::Unhealthy, found: Some(found) });
        let before = self.record.restarts.clone();
        let decision = upkeep::ended(&mut self.record, Exit::Unhealthy, now);
        self.announce(None, decision, now);
        self.keep_restarts(before);
    }

    fn became_healthy(&mut self, now: u64) {
        self.observe(Observe { kind: ConditionKind::Unhealthy, found: None });
        let before = self.record.restarts.clone();
        self.record.restarts.came_up(now);
        self.keep_restarts(before);
    }
}

impl Handler<HealthSeen> for VmActor {
    type Result = ();

    fn handle(&mut self, seen: HealthSeen, ctx: &mut Self::Context) {
        let current = seen.incarnation == self.incarnation && self.running.is_none();
        let stands = self.conditions.iter().any(|condition| condition.kind.stands_still());
        let (true, Some(checker)) = (current && !stands, &self.checker) else {
            return; // of before, or of a guest that is being changed or stands still
        };
        let (check, now) = (checker.check.clone(), self.scope.deps.ports.clock.unix_ms());
        let start_period = u64::try_from(check.start_period.as_millis()).unwrap_or(u64::MAX);
        let up = self.record.restarts.up_unix_ms;
        let early = up.is_some_and(|up| now.saturating_sub(up) < start_period);
        let before = self.health.take().unwrap_or_default();
        let was = before.status;
        let health = before.after(seen.run.clone(), &check, early);
        let is = health.status;
        self.health = Some(health);
        match (was == HealthStatus::Unhealthy, is == HealthStatus::Unhealthy) {
            (false, true) => self.became_unhealthy(&check, &seen.run, now),
            (true, false) if is == HealthStatus::Healthy => self.became_healthy(now),
            _ => {}
        }
        self.publish();
        self.arm(ctx);
    }
}

impl Handler<HeldBack> for VmActor {
    type Result = ();

    fn handle(&mut self, held: HeldBack, ctx: &mut Self::Context) {
        let due = self.record.restarts.next_unix_ms.is_some();
        if held.incarnation != self.incarnation || self.running.is_some() || !due {
            return; // an operation has come first, or the owner's word
        }
        let (before, now) = (self.record.restarts.clone(), self.scope.deps.ports.clock.unix_ms());
        tracing::warn!(vm_id = %self.scope.vm, failure = %held.failure, "not started by its policy");
        self.record.last_failure = Some(held.failure);
        let decision = upkeep::ended(&mut self.record, Exit::Held, now);
        self.announce(None, decision, now);
        self.publish();
        self.arm(ctx);
        self.keep_restarts(before);
    }
}
