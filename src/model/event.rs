//! What happened, numbered, for those who watch.

use super::ids::{OpId, VmId};
use super::lifecycle::VmState;
use super::op::{OpKind, Outcome};
use super::registry::Transfer;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Without gaps, over restarts of the daemon too; 0 until it is written.
    pub seq: u64,
    pub unix_ms: u64,
    pub op_id: Option<OpId>,
    pub vm: Option<VmId>,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    OpStarted {
        kind: OpKind,
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
        outcome: Outcome,
    },
    VmChanged {
        name: String,
        state: VmState,
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
    /// Free text for long work without steps of its own: `unpacked 1200 files`.
    Progress {
        text: String,
    },
    /// What users should know of an operation that goes well: `the guest is ended by force`.
    Note {
        text: String,
    },
    /// So many events came faster than they could be written, and are not told.
    Lost {
        count: u64,
    },
    /// How far a blob of a pull is; every second, and when it is whole.
    Transfer(Transfer),
}
