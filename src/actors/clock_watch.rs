//! Notices that the host slept or that its clock was set, and sets the clocks of all guests: theirs
//! stood still, or show what the host's showed.
//!
//! What must not be done here: count durations by wall-clock time. Whoever waits uses timers.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures::StreamExt;

use super::envelope::OpCtx;
use super::events::EventSink;
use super::handle::Handle;
use super::mint::Mint;
use super::service::{self, DeathBell};
use super::supervisor::{ListVms, SupervisorActor};
use crate::model::{ClockMarks, EventKind, OpId, VmId, VmState, chain};
use crate::ports::Ports;

const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Guests told at one time.
const AT_ONCE: usize = 16;
/// A guest that has just been woken may not listen at once.
const TRIES: u32 = 3;
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// The same for every incarnation.
#[derive(Debug)]
pub struct ClockWatchDeps {
    pub ports: Ports,
    pub supervisor: Handle<SupervisorActor>,
    pub events: EventSink,
    pub mint: Mint,
    /// The pause between two looks.
    pub every: Duration,
}

#[derive(Debug)]
pub struct ClockWatchActor {
    bell: DeathBell,
    deps: Arc<ClockWatchDeps>,
    last: ClockMarks,
}

impl ClockWatchActor {
    pub fn launch(deps: ClockWatchDeps) -> Handle<Self> {
        let deps = Arc::new(deps);
        service::keep("clock-watch", 1, Some(deps.events.clone()), move |bell| {
            let last = deps.ports.clock.marks();
            Self { bell, deps: Arc::clone(&deps), last }.start()
        })
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.deps.ports.clock.marks();
        let jump = now.since(&std::mem::replace(&mut self.last, now));
        let deps = Arc::clone(&self.deps);
        let telling = async move {
            if let Some(jump) = jump {
                deps.set_guests(&jump.to_string()).await;
            }
        };
        ctx.spawn(telling.into_actor(self).map(|(), act, ctx| {
            ctx.run_later(act.deps.every, Self::look);
        }));
    }
}

impl Actor for ClockWatchActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl ClockWatchDeps {
    async fn set_guests(&self, why: &str) {
        let op = self.mint.op();
        tracing::warn!(op_id = %op, why, "clocks of guests are set");
        let listed = self.supervisor.call(OpCtx::within(op, CALL_LIMIT), ListVms).await;
        let views = listed.unwrap_or_default().into_iter();
        let awake = views.filter(|view| view.record.state == VmState::Running);
        // One that stands still is told the time when it goes on.
        let awake = awake.filter(|view| view.standstill().is_none());
        let told = futures::stream::iter(awake)
            .map(|view| self.set_guest(op, view.record.id))
            .buffer_unordered(AT_ONCE)
            .filter(|told| std::future::ready(*told))
            .count()
            .await;
        let text = format!("{why}; clocks of guests set: {told}");
        self.events.publish(Some(op), None, EventKind::Note { text });
    }

    async fn set_guest(&self, op: OpId, vm: VmId) -> bool {
        let paths = self.ports.disk.paths(vm);
        for _ in 0..TRIES {
            let now = self.ports.clock.unix_ms();
            let told = self.ports.guest.set_clock(op, &paths, now);
            match tokio::time::timeout(TELL_LIMIT, told).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => {
                    tracing::warn!(vm_id = %vm, error = %chain(&error), "clock not set");
                    tokio::time::sleep(self.every).await;
                }
                Err(_) => tracing::warn!(vm_id = %vm, "clock not set: no answer"),
            }
        }
        false
    }
}
