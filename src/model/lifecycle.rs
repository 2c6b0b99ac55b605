//! The states of a VM and what may be asked in each.
//!
//! ```text
//!            start            ready
//! Created ─────────> Starting ─────> Running ──stop──> Stopping ──> Stopped
//!    ^                  │ undone        │                  │           │
//!    └── (Stopped) <────┘               └─ exit ─> Crashed │           └─start─> Starting
//!                     Error <── an undo or teardown got stuck ─┘
//!
//!            suspend                      resume              its memory is read, not yet used
//! Running ────────────> Suspending ─> Suspended ─────> Starting ─────────────────> Running
//!    ^── undone ───────────┘              ^── undone ─────┘
//! ```
//!
//! Pure: the actor applies what is decided here.

use std::fmt;

use super::op::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmState {
    Created,
    Starting,
    Running,
    Stopping,
    Stopped,
    /// The VMM ended without being asked to.
    Crashed,
    /// Something could not be undone; show, start, stop and delete each try again.
    Error,
    /// The guest's memory is being written.
    Suspending,
    /// The guest's memory is on disk; nothing runs.
    Suspended,
}

impl VmState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::Error => "error",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Kill,
    Restart,
    Delete,
    /// Exec, shell, copy: anything that talks to the guest.
    Enter,
    Suspend,
    Resume,
    /// A start after a repair of its disks.
    Repair,
}

/// The answer to a verb that is not simply carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a failure: what was asked for is so already.
    #[error("{}", already(*.0))]
    Already(VmState),
    #[error("the VM is {state}, not running")]
    NotRunning { state: VmState },
    #[error("the VM is {state}, not suspended")]
    NotSuspended { state: VmState },
    /// What stops a guest asks it first, and this one cannot be asked.
    #[error("the VM is suspended: its memory would be lost")]
    HoldsMemory,
}

fn already(state: VmState) -> String {
    match state {
        VmState::Created => "never started".to_owned(), // it was to be stopped
        other => format!("already {other}"),
    }
}

/// Whether `verb` may be carried out in `state`. Whether the VM is busy is not asked here.
pub fn admits(state: VmState, verb: Verb) -> Result<(), Refused> {
    use VmState as S;
    match (verb, state) {
        (Verb::Start | Verb::Repair, S::Running) => Err(Refused::Already(state)),
        (Verb::Stop | Verb::Kill, S::Created | S::Stopped) => Err(Refused::Already(state)),
        (Verb::Stop | Verb::Restart | Verb::Repair, S::Suspended) => Err(Refused::HoldsMemory),
        (Verb::Suspend, S::Suspended) | (Verb::Resume, S::Running) => Err(Refused::Already(state)),
        (Verb::Resume, S::Suspended) | (Verb::Enter | Verb::Suspend, S::Running) => Ok(()),
        (Verb::Enter | Verb::Suspend, _) => Err(Refused::NotRunning { state }),
        (Verb::Resume, _) => Err(Refused::NotSuspended { state }),
        _ => Ok(()),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    StartBegan,
    StartEnded(Outcome),
    StopBegan,
    StopEnded(Outcome),
    /// The VMM's process is gone; nobody asked for it.
    ProcessExited,
    SuspendBegan,
    SuspendEnded(Outcome),
    ResumeEnded(Outcome),
    RecoverEnded(Outcome),
}

/// The next state. Total: an event that does not fit leaves the state as it is, for it is late
/// news of something that an operation has dealt with.
#[must_use]
pub fn step(state: VmState, event: &VmEvent) -> VmState {
    use VmState as S;
    match (event, state) {
        (VmEvent::StartBegan, _) => S::Starting,
        (VmEvent::StopBegan, _) => S::Stopping,
        (VmEvent::SuspendBegan, _) => S::Suspending,
        (
            VmEvent::StartEnded(Outcome::Done | Outcome::Unchanged(_))
            | VmEvent::ResumeEnded(Outcome::Done | Outcome::Unchanged(_))
            | VmEvent::SuspendEnded(Outcome::RolledBack { .. }),
            _,
        ) => S::Running,
        (
            VmEvent::SuspendEnded(Outcome::Done | Outcome::Unchanged(_))
            | VmEvent::ResumeEnded(Outcome::RolledBack { .. }),
            _,
        ) => S::Suspended,
        (VmEvent::StartEnded(Outcome::RolledBack { .. }), _)
        | (VmEvent::StopEnded(Outcome::Done | Outcome::Unchanged(_)), _)
        // Taken back means that its disks were not looked at: all else was done before.
        | (
            VmEvent::RecoverEnded(
                Outcome::Done | Outcome::Unchanged(_) | Outcome::RolledBack { .. },
            ),
            _,
        ) => S::Stopped,
        (
            VmEvent::StartEnded(Outcome::Stuck { .. })
            | VmEvent::SuspendEnded(Outcome::Stuck { .. })
            | VmEvent::ResumeEnded(Outcome::Stuck { .. })
            | VmEvent::RecoverEnded(Outcome::Stuck { .. })
            | VmEvent::StopEnded(Outcome::Stuck { .. } | Outcome::RolledBack { .. }),
            _,
        ) => S::Error,
        (VmEvent::ProcessExited, S::Running) => S::Crashed,
        (VmEvent::ProcessExited, other) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VmState as S;

    const ALL: [S; 9] = [
        S::Created,
        S::Starting,
        S::Running,
        S::Stopping,
        S::Stopped,
        S::Crashed,
        S::Error,
        S::Suspending,
        S::Suspended,
    ];

    #[test]
    fn broken_vms_can_always_be_started_stopped_and_deleted() {
        for state in [S::Error, S::Crashed] {
            for verb in [Verb::Start, Verb::Repair, Verb::Stop, Verb::Kill, Verb::Delete] {
                assert_eq!(admits(state, verb), Ok(()), "{state} {verb:?}");
            }
        }
    }

    #[test]
    fn what_is_so_already_is_said_in_words_that_fit() {
        let said = |state, verb| admits(state, verb).unwrap_err().to_string();
        assert_eq!(said(S::Running, Verb::Start), "already running");
        assert_eq!(said(S::Stopped, Verb::Stop), "already stopped");
        assert_eq!(said(S::Created, Verb::Stop), "never started");
    }

    #[test]
    fn a_suspended_vm_is_resumed_killed_or_deleted_and_not_stopped() {
        for verb in [Verb::Start, Verb::Resume, Verb::Kill, Verb::Delete] {
            assert_eq!(admits(S::Suspended, verb), Ok(()), "{verb:?}");
        }
        for verb in [Verb::Stop, Verb::Restart, Verb::Repair] {
            assert_eq!(admits(S::Suspended, verb), Err(Refused::HoldsMemory), "{verb:?}");
        }
        assert_eq!(admits(S::Suspended, Verb::Suspend), Err(Refused::Already(S::Suspended)));
        for state in ALL.into_iter().filter(|state| *state != S::Running) {
            assert!(admits(state, Verb::Suspend).is_err(), "{state}");
        }
        assert_eq!(
            admits(S::Stopped, Verb::Resume).unwrap_err().to_string(),
            "the VM is stopped, not suspended"
        );
    }

    #[test]
    fn a_suspend_or_resume_that_is_undone_changes_nothing() {
        let undone = || Outcome::RolledBack { step: "s".to_owned(), cause: "c".to_owned() };
        assert_eq!(step(S::Suspending, &VmEvent::SuspendEnded(undone())), S::Running);
        assert_eq!(step(S::Starting, &VmEvent::ResumeEnded(undone())), S::Suspended);
    }

    #[test]
    fn delete_is_never_refused_by_state() {
        assert!(ALL.iter().all(|state| admits(*state, Verb::Delete).is_ok()));
    }

    #[test]
    fn only_running_guests_can_be_entered() {
        for state in ALL {
            assert_eq!(admits(state, Verb::Enter).is_ok(), state == S::Running);
        }
    }

    #[test]
    fn an_exit_is_a_crash_only_when_running() {
        for state in ALL {
            let next = step(state, &VmEvent::ProcessExited);
            assert_eq!(next, if state == S::Running { S::Crashed } else { state });
        }
    }
}
