//! What every request to an actor carries, and the ways a call can fail.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::model::{Code, Failure, OpId};

#[derive(Clone, Debug)]
pub struct OpCtx {
    pub op_id: OpId,
    /// How long the caller waits. The operation has its own life: see [`CallError::Deadline`].
    pub deadline: Instant,
    pub span: tracing::Span,
}

impl OpCtx {
    /// For a caller that waits so long, in the span it is in.
    #[must_use]
    pub fn within(op_id: OpId, limit: Duration) -> Self {
        // The runtime's clock, which the waiting goes by; tests stop it.
        let now = tokio::time::Instant::now().into_std();
        Self { op_id, deadline: now + limit, span: tracing::Span::current() }
    }
}

/// A full queue must not be able to refuse the request that would empty it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Normal,
    Urgent,
}

pub trait Command: Send + 'static {
    type Reply: Send + 'static;
    const NAME: &'static str;

    /// Asked of the command itself, for one command may carry several verbs.
    fn lane(&self) -> Lane {
        Lane::Normal
    }
}

/// The envelope. Only a [`super::Handle`] makes one, so nothing reaches a mailbox uncounted.
#[derive(Debug)]
pub struct Req<C> {
    pub ctx: OpCtx,
    pub cmd: C,
    /// Given back when the handler drops the envelope: it counts what waits in the mailbox.
    pub(super) _slot: OwnedSemaphorePermit,
}

impl<C: Command> actix::Message for Req<C> {
    type Result = Result<C::Reply, CallError>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("too many requests are waiting")]
    Overloaded,
    #[error("the deadline passed; the operation may still be running")]
    Deadline,
    #[error("the actor is gone")]
    Gone,
    #[error(transparent)]
    Refused(#[from] Box<Failure>),
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(failure) => *failure,
            CallError::Overloaded => Self::new(Code::Overloaded, error.to_string())
                .hint("the daemon is busy; try again in a moment"),
            CallError::Deadline => Self::new(Code::Deadline, error.to_string())
                .hint("`banger ops list` shows what runs"),
            CallError::Gone => Self::new(Code::Internal, "the actor ended while it was asked")
                .hint("it is being rebuilt; try again"),
        }
    }
}
