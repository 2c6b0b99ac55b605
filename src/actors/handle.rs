//! The only place an `Addr` lives.
//!
//! actix's own mailbox capacity is no bound: `do_send` ignores it and every clone of an address
//! has a slot of its own. So the bound is a semaphore taken before sending.

use std::sync::{Arc, PoisonError, RwLock};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler};
use tokio::sync::Semaphore;

use super::envelope::{CallError, Command, Lane, OpCtx, Req};

const URGENT_SLOTS: usize = 4;

pub struct Handle<A: Actor> {
    /// Replaced when the actor is built anew; held for the moment of a clone only.
    addr: Arc<RwLock<Addr<A>>>,
    normal: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
}

impl<A: Actor> std::fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl<A: Actor> Clone for Handle<A> {
    fn clone(&self) -> Self {
        let (normal, urgent) = (Arc::clone(&self.normal), Arc::clone(&self.urgent));
        Self { addr: Arc::clone(&self.addr), normal, urgent }
    }
}

impl<A: Actor> Handle<A> {
    #[must_use]
    pub fn new(addr: Addr<A>, slots: usize) -> Self {
        let (normal, urgent) = (Semaphore::new(slots), Semaphore::new(URGENT_SLOTS));
        let addr = Arc::new(RwLock::new(addr));
        Self { addr, normal: Arc::new(normal), urgent: Arc::new(urgent) }
    }

    /// Every clone of the handle leads to the new actor from now on.
    pub(super) fn replace(&self, addr: Addr<A>) {
        *self.addr.write().unwrap_or_else(PoisonError::into_inner) = addr;
    }

    fn addr(&self) -> Addr<A> {
        self.addr.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that sends")]
    pub async fn call<C>(&self, ctx: OpCtx, cmd: C) -> Result<C::Reply, CallError>
    where
        C: Command,
        A: Handler<Req<C>>,
        A::Context: ToEnvelope<A, Req<C>>,
    {
        let lane = match cmd.lane() {
            Lane::Normal => &self.normal,
            Lane::Urgent => &self.urgent,
        };
        let Ok(slot) = Arc::clone(lane).try_acquire_owned() else {
            tracing::debug!(command = C::NAME, op_id = %ctx.op_id, "refused: the queue is full");
            return Err(CallError::Overloaded);
        };
        let deadline = ctx.deadline.into();
        let sent = self.addr().send(Req { ctx, cmd, _slot: slot });
        match tokio::time::timeout_at(deadline, sent).await {
            Err(_elapsed) => Err(CallError::Deadline),
            Ok(Err(_mailbox)) => Err(CallError::Gone),
            Ok(Ok(reply)) => reply,
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.addr().connected()
    }
}
