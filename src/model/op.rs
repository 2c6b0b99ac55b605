//! What the journal of an operation may say, and in which order.
//!
//! ```text
//! NotStarted ─Started─> Running ─Succeeded─> Done ───────┐
//!                        │   └───Failed────> Failed ──┐  │
//!                        └──────UndoStarted──────┐    │  │
//!            Undone <─UndoFinished─ Undoing <────┴────┴──┘
//!        UndoFailed <─UndoFailed────┘  ^
//!            └───────UndoStarted───────┘   (a retry)
//! ```
//!
//! `Started` while Running and `UndoStarted` while Undoing are legal: a crash came between.
//! `Started` while Failed is legal too: what tears down is tried again instead of undone.

use super::ids::{OpId, VmId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEvent {
    Started,
    Succeeded(String),
    Failed(String),
    UndoStarted,
    UndoFinished,
    UndoFailed(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub step: String,
    pub event: StepEvent,
    pub unix_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepStatus {
    #[default]
    NotStarted,
    Running,
    Done,
    Failed,
    Undoing,
    Undone,
    UndoFailed,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: {event:?} is not legal while {status:?}")]
pub struct IllegalEvent {
    step: String,
    status: StepStatus,
    event: StepEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
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
    /// Born in the daemon: takes away what a VM that ended by itself left behind.
    CleanUpVm,
    SuspendVm,
    ResumeVm,
    SetVm,
    /// Takes away what ledger and host disagree on; a VM's own part of it is the second.
    CollectGarbage,
    CollectVm,
    /// Leaves an error, with the data intact.
    RecoverVm,
    TagImage,
    PullImage,
    CommitVm,
    EmptyCache,
    PullKernel,
}

impl OpKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateVm => "vm-create",
            Self::StartVm => "vm-start",
            Self::StopVm => "vm-stop",
            Self::KillVm => "vm-kill",
            Self::DeleteVm => "vm-delete",
            Self::RestartVm => "vm-restart",
            Self::BuildImage => "image-build",
            Self::ImportImage => "image-import",
            Self::DeleteImage => "image-delete",
            Self::ImportKernel => "kernel-import",
            Self::DeleteKernel => "kernel-delete",
            Self::CleanUpVm => "vm-clean-up",
            Self::SuspendVm => "vm-suspend",
            Self::ResumeVm => "vm-resume",
            Self::SetVm => "vm-set",
            Self::CollectGarbage => "gc",
            Self::CollectVm => "vm-gc",
            Self::RecoverVm => "vm-recover",
            Self::TagImage => "image-tag",
            Self::PullImage => "image-pull",
            Self::CommitVm => "vm-commit",
            Self::EmptyCache => "image-empty-cache",
            Self::PullKernel => "kernel-pull",
        }
    }
}

/// The cause of what the daemon's end cut short, where that is all there is to say.
pub const CUT_SHORT: &str = "interrupted by a restart";

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nothing had to be done; the text says why: `already stopped`.
    Unchanged(String),
    RolledBack {
        step: String,
        cause: String,
    },
    Stuck {
        step: String,
        cause: String,
        undo: String,
    },
}

/// What is known of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpRecord {
    pub id: OpId,
    pub kind: OpKind,
    pub vm: Option<VmId>,
    /// What it was asked for: a VM's, image's or kernel's name.
    pub subject: String,
    /// The same id with another hash is another request under a used id, and refused.
    pub request_hash: u64,
    pub started_unix_ms: u64,
    pub ended_unix_ms: Option<u64>,
    pub outcome: Option<Outcome>,
}

/// One line of the ladder that `ops show` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTiming {
    pub step: String,
    pub status: StepStatus,
    pub started_unix_ms: Option<u64>,
    pub ended_unix_ms: Option<u64>,
    pub error: Option<String>,
}

/// Where one step stands, folded from its journal entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub status: StepStatus,
    pub output: Option<String>,
    pub error: Option<String>,
}

impl Progress {
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        use StepEvent as E;
        use StepStatus as S;
        self.status = match (self.status, &entry.event) {
            (S::NotStarted | S::Running | S::Failed, E::Started) => S::Running,
            (S::Running, E::Succeeded(_)) => S::Done,
            (S::Running, E::Failed(_)) => S::Failed,
            (S::Running | S::Done | S::Failed | S::Undoing | S::UndoFailed, E::UndoStarted) => {
                S::Undoing
            }
            (S::Undoing, E::UndoFinished) => S::Undone,
            (S::Undoing, E::UndoFailed(_)) => S::UndoFailed,
            (status, event) => {
                let (step, event) = (entry.step.clone(), event.clone());
                return Err(IllegalEvent { step, status, event });
            }
        };
        match &entry.event {
            E::Succeeded(output) => self.output = Some(output.clone()),
            E::Failed(error) => self.error = Some(error.clone()),
            E::Started | E::UndoStarted | E::UndoFinished | E::UndoFailed(_) => {}
        }
        Ok(())
    }

    /// Whether anything of this step may be on the host.
    #[must_use]
    pub fn touched(&self) -> bool {
        !matches!(self.status, StepStatus::NotStarted | StepStatus::Undone)
    }

    /// Whether the operation had already turned round here.
    #[must_use]
    pub fn turned_back(&self) -> bool {
        use StepStatus as S;
        matches!(self.status, S::Failed | S::Undoing | S::Undone | S::UndoFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(events: &[StepEvent]) -> Result<StepStatus, IllegalEvent> {
        let mut progress = Progress::default();
        for event in events {
            progress.apply(&Entry { step: "tap".into(), event: event.clone(), unix_ms: 0 })?;
        }
        Ok(progress.status)
    }

    #[test]
    fn order_is_enforced() {
        use StepEvent as E;
        assert_eq!(fold(&[E::Started, E::Started]), Ok(StepStatus::Running));
        assert_eq!(
            fold(&[E::Started, E::UndoStarted, E::UndoStarted, E::UndoFinished]),
            Ok(StepStatus::Undone)
        );
        let again = [E::Started, E::Failed("no".into()), E::Started, E::Succeeded("x".into())];
        assert_eq!(fold(&again), Ok(StepStatus::Done));
        assert!(fold(&[E::Succeeded("x".into())]).is_err());
        assert!(fold(&[E::UndoStarted]).is_err());
        assert!(fold(&[E::Started, E::UndoStarted, E::Succeeded("x".into())]).is_err());
    }
}
