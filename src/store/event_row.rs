//! How events are stored. Frozen, as everything stored: a change is a new variant at the end.

use super::op_row::{KindV1, OutcomeV1};
use super::table::{BadValue, Row};
use super::vm_row::StateV1;
use crate::model::{Event, EventKind, OpId, Transfer, VmId};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredEvent {
    V1(EventV1),
}

#[derive(Encode, Decode)]
pub(super) struct EventV1 {
    seq: u64,
    unix_ms: u64,
    op_id: Option<[u8; 16]>,
    vm: Option<[u8; 16]>,
    kind: EventKindV1,
}

#[derive(Encode, Decode)]
enum EventKindV1 {
    OpStarted {
        kind: KindV1,
        subject: String,
    },
    StepStarted {
        step: String,
    },
    StepDone {
        step: String,
        elapsed_us: u64,
    },
    StepFailed {
        step: String,
        cause: String,
    },
    StepUndone {
        step: String,
    },
    OpEnded {
        outcome: OutcomeV1,
    },
    VmChanged {
        name: String,
        state: StateV1,
    },
    VmExited {
        name: String,
        how: String,
        expected: bool,
    },
    ActorRebuilt {
        actor: String,
        incarnation: u64,
    },
    ActorQuarantined {
        actor: String,
    },
    Progress {
        text: String,
    },
    Note {
        text: String,
    },
    Lost {
        count: u64,
    },
    Transfer {
        blob: String,
        number: u32,
        of: u32,
        bytes: u64,
        size: u64,
        bytes_per_second: u64,
        left_ms: Option<u64>,
    },
}

impl Row for Event {
    type Stored = StoredEvent;
}

impl From<Event> for StoredEvent {
    fn from(event: Event) -> Self {
        Self::V1(EventV1 {
            seq: event.seq,
            unix_ms: event.unix_ms,
            op_id: event.op_id.map(|op| op.0),
            vm: event.vm.map(|vm| vm.0),
            kind: event.kind.into(),
        })
    }
}

impl TryFrom<StoredEvent> for Event {
    type Error = BadValue;

    fn try_from(stored: StoredEvent) -> Result<Self, BadValue> {
        let StoredEvent::V1(event) = stored;
        Ok(Self {
            seq: event.seq,
            unix_ms: event.unix_ms,
            op_id: event.op_id.map(OpId),
            vm: event.vm.map(VmId),
            kind: event.kind.into(),
        })
    }
}

impl From<EventKind> for EventKindV1 {
    fn from(kind: EventKind) -> Self {
        use EventKind as E;
        match kind {
            E::OpStarted { kind, subject } => Self::OpStarted { kind: kind.into(), subject },
            E::StepStarted { step } => Self::StepStarted { step },
            E::StepDone { step, elapsed_us } => Self::StepDone { step, elapsed_us },
            E::StepFailed { step, cause } => Self::StepFailed { step, cause },
            E::StepUndone { step } => Self::StepUndone { step },
            E::OpEnded { outcome } => Self::OpEnded { outcome: outcome.into() },
            E::VmChanged { name, state } => Self::VmChanged { name, state: state.into() },
            E::VmExited { name, how, expected } => Self::VmExited { name, how, expected },
            E::ActorRebuilt { actor, incarnation } => Self::ActorRebuilt { actor, incarnation },
            E::ActorQuarantined { actor } => Self::ActorQuarantined { actor },
            E::Progress { text } => Self::Progress { text },
            E::Note { text } => Self::Note { text },
            E::Lost { count } => Self::Lost { count },
            E::Transfer(seen) => {
                let Transfer { blob, number, of, bytes, size, bytes_per_second, left_ms } = seen;
                Self::Transfer { blob, number, of, bytes, size, bytes_per_second, left_ms }
            }
        }
    }
}

impl From<EventKindV1> for EventKind {
    fn from(stored: EventKindV1) -> Self {
        use EventKindV1 as V;
        match stored {
            V::OpStarted { kind, subject } => Self::OpStarted { kind: kind.into(), subject },
            V::StepStarted { step } => Self::StepStarted { step },
            V::StepDone { step, elapsed_us } => Self::StepDone { step, elapsed_us },
            V::StepFailed { step, cause } => Self::StepFailed { step, cause },
            V::StepUndone { step } => Self::StepUndone { step },
            V::OpEnded { outcome } => Self::OpEnded { outcome: outcome.into() },
            V::VmChanged { name, state } => Self::VmChanged { name, state: state.into() },
            V::VmExited { name, how, expected } => Self::VmExited { name, how, expected },
            V::ActorRebuilt { actor, incarnation } => Self::ActorRebuilt { actor, incarnation },
            V::ActorQuarantined { actor } => Self::ActorQuarantined { actor },
            V::Progress { text } => Self::Progress { text },
            V::Note { text } => Self::Note { text },
            V::Lost { count } => Self::Lost { count },
            V::Transfer { blob, number, of, bytes, size, bytes_per_second, left_ms } => {
                Self::Transfer(Transfer {
                    blob,
                    number,
                    of,
                    bytes,
                    size,
                    bytes_per_second,
                    left_ms,
                })
            }
        }
    }
}
