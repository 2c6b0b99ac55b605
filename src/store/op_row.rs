//! How operations and their journal entries are stored. Frozen, as everything stored: a change is
//! a new variant at the end of [`StoredOp`] or [`StoredEntry`].

use super::table::{BadValue, Row};
use crate::model::{Entry, OpId, OpKind, OpRecord, Outcome, StepEvent, VmId};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredOp {
    V1(OpV1),
}

#[derive(Encode, Decode)]
pub(super) struct OpV1 {
    id: [u8; 16],
    kind: KindV1,
    vm: Option<[u8; 16]>,
    subject: String,
    request_hash: u64,
    started_unix_ms: u64,
    ended_unix_ms: Option<u64>,
    outcome: Option<OutcomeV1>,
}

#[derive(Clone, Copy, Encode, Decode)]
pub(super) enum KindV1 {
    CreateVm,
    StartVm,
    StopVm,
    KillVm,
    DeleteVm,
    RestartVm,
    BuildImage,
    ImportImage,
    DeleteImage,
    ImportKernel,
    DeleteKernel,
    CleanUpVm,
    SuspendVm,
    ResumeVm,
    SetVm,
    CollectGarbage,
    CollectVm,
    RecoverVm,
    TagImage,
    PullImage,
    CommitVm,
    EmptyCache,
    PullKernel,
}

#[derive(Encode, Decode)]
pub(super) enum OutcomeV1 {
    Done,
    Unchanged(String),
    RolledBack { step: String, cause: String },
    Stuck { step: String, cause: String, undo: String },
}

#[derive(Encode, Decode)]
pub(super) enum StoredEntry {
    V1 { step: String, event: EventV1, unix_ms: u64 },
}

#[derive(Encode, Decode)]
pub(super) enum EventV1 {
    Started,
    Succeeded(String),
    Failed(String),
    UndoStarted,
    UndoFinished,
    UndoFailed(String),
}

impl Row for OpRecord {
    type Stored = StoredOp;
}

impl Row for Entry {
    type Stored = StoredEntry;
}

impl From<OpRecord> for StoredOp {
    fn from(op: OpRecord) -> Self {
        Self::V1(OpV1 {
            id: op.id.0,
            kind: op.kind.into(),
            vm: op.vm.map(|vm| vm.0),
            subject: op.subject,
            request_hash: op.request_hash,
            started_unix_ms: op.started_unix_ms,
            ended_unix_ms: op.ended_unix_ms,
            outcome: op.outcome.map(Into::into),
        })
    }
}

impl TryFrom<StoredOp> for OpRecord {
    type Error = BadValue;

    fn try_from(stored: StoredOp) -> Result<Self, BadValue> {
        let StoredOp::V1(op) = stored;
        Ok(Self {
            id: OpId(op.id),
            kind: op.kind.into(),
            vm: op.vm.map(VmId),
            subject: op.subject,
            request_hash: op.request_hash,
            started_unix_ms: op.started_unix_ms,
            ended_unix_ms: op.ended_unix_ms,
            outcome: op.outcome.map(Into::into),
        })
    }
}

impl From<OpKind> for KindV1 {
    fn from(kind: OpKind) -> Self {
        match kind {
            OpKind::CreateVm => Self::CreateVm,
            OpKind::StartVm => Self::StartVm,
            OpKind::StopVm => Self::StopVm,
            OpKind::KillVm => Self::KillVm,
            OpKind::DeleteVm => Self::DeleteVm,
            OpKind::RestartVm => Self::RestartVm,
            OpKind::BuildImage => Self::BuildImage,
            OpKind::ImportImage => Self::ImportImage,
            OpKind::DeleteImage => Self::DeleteImage,
            OpKind::ImportKernel => Self::ImportKernel,
            OpKind::DeleteKernel => Self::DeleteKernel,
            OpKind::CleanUpVm => Self::CleanUpVm,
            OpKind::SuspendVm => Self::SuspendVm,
            OpKind::ResumeVm => Self::ResumeVm,
            OpKind::SetVm => Self::SetVm,
            OpKind::CollectGarbage => Self::CollectGarbage,
            OpKind::TagImage => Self::TagImage,
            OpKind::CommitVm => Self::CommitVm,
            OpKind::CollectVm => Self::CollectVm,
            OpKind::RecoverVm => Self::RecoverVm,
            OpKind::PullImage => Self::PullImage,
            OpKind::EmptyCache => Self::EmptyCache,
            OpKind::PullKernel => Self::PullKernel,
        }
    }
}

impl From<KindV1> for OpKind {
    fn from(stored: KindV1) -> Self {
        match stored {
            KindV1::CreateVm => Self::CreateVm,
            KindV1::StartVm => Self::StartVm,
            KindV1::StopVm => Self::StopVm,
            KindV1::KillVm => Self::KillVm,
            KindV1::DeleteVm => Self::DeleteVm,
            KindV1::RestartVm => Self::RestartVm,
            KindV1::BuildImage => Self::BuildImage,
            KindV1::ImportImage => Self::ImportImage,
            KindV1::DeleteImage => Self::DeleteImage,
            KindV1::ImportKernel => Self::ImportKernel,
            KindV1::DeleteKernel => Self::DeleteKernel,
            KindV1::CleanUpVm => Self::CleanUpVm,
            KindV1::SuspendVm => Self::SuspendVm,
            KindV1::ResumeVm => Self::ResumeVm,
            KindV1::SetVm => Self::SetVm,
            KindV1::CollectGarbage => Self::CollectGarbage,
            KindV1::TagImage => Self::TagImage,
            KindV1::CommitVm => Self::CommitVm,
            KindV1::CollectVm => Self::CollectVm,
            KindV1::RecoverVm => Self::RecoverVm,
            KindV1::PullImage => Self::PullImage,
            KindV1::EmptyCache => Self::EmptyCache,
            KindV1::PullKernel => Self::PullKernel,
        }
    }
}

impl From<Outcome> for OutcomeV1 {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Unchanged(why) => Self::Unchanged(why),
            Outcome::RolledBack { step, cause } => Self::RolledBack { step, cause },
            Outcome::Stuck { step, cause, undo } => Self::Stuck { step, cause, undo },
        }
    }
}

impl From<OutcomeV1> for Outcome {
    fn from(stored: OutcomeV1) -> Self {
        match stored {
            OutcomeV1::Done => Self::Done,
            OutcomeV1::Unchanged(why) => Self::Unchanged(why),
            OutcomeV1::RolledBack { step, cause } => Self::RolledBack { step, cause },
            OutcomeV1::Stuck { step, cause, undo } => Self::Stuck { step, cause, undo },
        }
    }
}

impl From<Entry> for StoredEntry {
    fn from(entry: Entry) -> Self {
        let event = match entry.event {
            StepEvent::Started => EventV1::Started,
            StepEvent::Succeeded(output) => EventV1::Succeeded(output),
            StepEvent::Failed(error) => EventV1::Failed(error),
            StepEvent::UndoStarted => EventV1::UndoStarted,
            StepEvent::UndoFinished => EventV1::UndoFinished,
            StepEvent::UndoFailed(error) => EventV1::UndoFailed(error),
        };
        Self::V1 { step: entry.step, event, unix_ms: entry.unix_ms }
    }
}

impl TryFrom<StoredEntry> for Entry {
    type Error = BadValue;

    fn try_from(stored: StoredEntry) -> Result<Self, BadValue> {
        let StoredEntry::V1 { step, event, unix_ms } = stored;
        let event = match event {
            EventV1::Started => StepEvent::Started,
            EventV1::Succeeded(output) => StepEvent::Succeeded(output),
            EventV1::Failed(error) => StepEvent::Failed(error),
            EventV1::UndoStarted => StepEvent::UndoStarted,
            EventV1::UndoFinished => StepEvent::UndoFinished,
            EventV1::UndoFailed(error) => StepEvent::UndoFailed(error),
        };
        Ok(Self { step, event, unix_ms })
    }
}
