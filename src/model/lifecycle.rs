//! The states of a VM and what may be asked in each.
//!
//! ```text
//!            start            ready
//! Created ─────────> Starting ─────> Running ──stop──> Stopping ──> Stopped
//!    ^                  │ undone        │                  │           │
//!    └── (Stopped) <────┘               └─ exit ─> Crashed │           └─start─> Starting
//!                     Error <── an undo or teardown got stuck ─┘
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
}

/// The answer to a verb that is not simply carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a failure: what was asked for is so already.
    #[error("{}", already(*.0))]
    Already(VmState),
    #[error("the VM is {state}, not running")]
    NotRunning { state: VmState },
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
        (Verb::Start, S::Running) => Err(Refused::Already(state)),
        (Verb::Stop | Verb::Kill, S::Created | S::Stopped) => Err(Refused::Already(state)),
        (Verb::Enter, S::Running) => Ok(()),
        (Verb::Enter, _) => Err(Refused::NotRunning { state }),
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
}

/// The next state. Total: an event that does not fit leaves the state as it is, for it is late
/// news of something that an operation has dealt with.
#[must_use]
pub fn step(state: VmState, event: &VmEvent) -> VmState {
    use VmState as S;
    match (event, state) {
        (VmEvent::StartBegan, _) => S::Starting,
        (VmEvent::StopBegan, _) => S::Stopping,
        (VmEvent::StartEnded(Outcome::Done | Outcome::Unchanged(_)), _) => S::Running,
        (VmEvent::StartEnded(Outcome::RolledBack { .. }), _)
        | (VmEvent::StopEnded(Outcome::Done | Outcome::Unchanged(_)), _) => S::Stopped,
        (VmEvent::StartEnded(Outcome::Stuck { .. }), _)
        | (VmEvent::StopEnded(Outcome::Stuck { .. } | Outcome::RolledBack { .. }), _) => S::Error,
        (VmEvent::ProcessExited, S::Running) => S::Crashed,
        (VmEvent::ProcessExited, other) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VmState as S;

    const ALL: [S; 7] =
        [S::Created, S::Starting, S::Running, S::Stopping, S::Stopped, S::Crashed, S::Error];

    #[test]
    fn broken_vms_can_always_be_started_stopped_and_deleted() {
        for state in [S::Error, S::Crashed] {
            for verb in [Verb::Start, Verb::Stop, Verb::Kill, Verb::Delete] {
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
