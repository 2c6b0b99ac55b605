//! Starts that restart policies ask for: as many at one time as the host bears, admitted as any other.
//!
//! ```text
//! StartDue ──> queue ──room for one more──> admitted? ── yes ──> RunOp to the VM ──> its end
//!                                              └ no ──> HeldBack to the VM, which waits and asks again
//! ```
//!
//! Nothing of this is durable: an actor that is due asks again when it, or the daemon, is new.

use std::collections::VecDeque;
use std::time::Duration;

use actix::prelude::*;

use super::envelope::{CallError, OpCtx};
use super::supervisor::SupervisorActor;
use super::vm::{Asker, HeldBack, OpRequest, RunOp, Ticket};
use super::watch::StartDue;
use crate::model::{Failure, VmState};

/// For a VM's actor to accept it; the operation is not waited for that long.
const ACCEPT_LIMIT: Duration = Duration::from_secs(30);

/// Bounded by the number of VMs: each is in the queue at most once.
#[derive(Debug, Default)]
pub(super) struct Starts {
    due: VecDeque<StartDue>,
    under_way: usize,
}

impl Handler<StartDue> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, due: StartDue, ctx: &mut Self::Context) {
        self.starts.due.retain(|other| other.vm != due.vm);
        self.starts.due.push_back(due);
        self.start_what_is_due(ctx);
    }
}

impl SupervisorActor {
    fn start_what_is_due(&mut self, ctx: &mut Context<Self>) {
        while self.starts.under_way < self.parallel_starts() {
            let Some(due) = self.starts.due.pop_front() else { return };
            // An actor that is gone comes back and asks again; one that is busy asks when it is done.
            let Some(view) = self.view_of_idle(due.vm, due.incarnation) else { continue };
            let op_id = self.new_op();
            let request = match view.record.state {
                VmState::Running => OpRequest::Restart { grace: self.grace() },
                _ => OpRequest::Start,
            };
            if let Err(failure) = self.admit_start(op_id, &view) {
                hold_back(&due, failure);
                continue;
            }
            self.starts.under_way += 1;
            let call = OpCtx::within(op_id, ACCEPT_LIMIT);
            let cmd = RunOp { request, request_hash: 0, by: Asker::Policy };
            let started = self.bring_up(due.vm, call, cmd);
            ctx.spawn(started.map(move |answer, act, ctx| match answer {
                Ok(ticket) => act.see_to_its_end(ticket, ctx),
                Err(error) => {
                    if !matches!(error, CallError::Gone) {
                        hold_back(&due, error.into());
                    }
                    act.one_less(ctx);
                }
            }));
        }
    }

    fn see_to_its_end(&mut self, mut ticket: Ticket, ctx: &mut Context<Self>) {
        let end = async move { drop(ticket.end().await) };
        ctx.spawn(end.into_actor(self).map(|(), act, ctx| act.one_less(ctx)));
    }

    fn one_less(&mut self, ctx: &mut Context<Self>) {
        self.starts.under_way -= 1;
        self.start_what_is_due(ctx);
    }
}

/// A VM whose owner said something meanwhile does not listen.
fn hold_back(due: &StartDue, failure: Failure) {
    if let Some(actor) = due.held.upgrade() {
        actor.do_send(HeldBack { incarnation: due.incarnation, failure });
    }
}
