//! Whether, and when, a VM that is off though its owner wants it on is started again.
//!
//! ```text
//! ended ──decide──> Leave                        the owner's word or the policy says so
//!            ├────> RestartAt(now + pause)       1 s, doubled each time, a minute at most
//!            └────> GiveUp                       five failures in ten minutes, or all tries used
//! ```
//!
//! A run of ten minutes forgets what was before. What is the host's fault (no room, no helper) is no
//! failure of the guest's and is tried again for as long as it lasts. Pure: the VM's actor keeps the
//! history with the record and carries out what is decided here.

use std::fmt;
use std::str::FromStr;

const FIRST_PAUSE_MS: u64 = 1_000;
/// No wait is longer, whatever the clock does meanwhile.
pub(crate) const LONGEST_PAUSE_MS: u64 = 60_000;
const WINDOW_MS: u64 = 10 * 60_000;
const FAILURES: usize = 5;
/// A guest that ran for so long is taken for a sound one.
const SOUND_MS: u64 = 10 * 60_000;

/// What the daemon does about a VM that ended though nobody asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    #[default]
    No,
    /// Also after a restart of the host that it was on in.
    OnFailure {
        /// How often in a row; without a number as often as a crash loop allows.
        max: Option<u32>,
    },
    /// Also after a restart of the host that it was shut down for.
    Always,
}

/// What the VM's owner asked for last. No crash, no policy and no shutdown of the host changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    #[default]
    Stopped,
    Running,
}

impl Wanted {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
        }
    }
}

/// What the policy goes by, besides what just happened. Durable. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartHistory {
    /// Starts by the policy since its owner's last word, or since it last ran for long.
    pub count: u32,
    /// When it failed, of late; oldest first.
    pub failures: Vec<u64>,
    /// Tries in a row that the host could not serve.
    pub held: u32,
    /// When it is started again.
    pub next_unix_ms: Option<u64>,
    /// Since when it has been up.
    pub up_unix_ms: Option<u64>,
}

/// What happened to a VM that its owner may want on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its VMM ended by itself.
    Died,
    /// It runs, and its health check has failed too often.
    Unhealthy,
    /// A start by the policy failed, by the guest's own fault.
    NotStarted,
    /// The host could not start it, for want of room or for a trouble of its own.
    Held,
    /// `on`: it was up, or about to be.
    HostRestarted { on: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Leave,
    RestartAt(u64),
    GiveUp(GiveUp),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    #[error("it failed {FAILURES} times in {} minutes", WINDOW_MS / 60_000)]
    CrashLoop,
    #[error("it was started again {0} times, as often as its policy allows")]
    Used(u32),
}

#[must_use]
pub fn decide(
    policy: RestartPolicy,
    wanted: Wanted,
    history: &RestartHistory,
    exit: Exit,
    now: u64,
) -> Decision {
    let max = match (wanted, policy, exit) {
        (Wanted::Stopped, ..)
        | (_, RestartPolicy::No, _)
        | (_, RestartPolicy::OnFailure { .. }, Exit::HostRestarted { on: false }) => {
            return Decision::Leave;
        }
        (_, RestartPolicy::OnFailure { max }, _) => max,
        (_, RestartPolicy::Always, _) => None,
    };
    let seen = history.seen(exit, now);
    match exit {
        Exit::HostRestarted { .. } => Decision::RestartAt(now),
        Exit::Held => Decision::RestartAt(now.saturating_add(pause(seen.held.saturating_sub(1)))),
        Exit::Died | Exit::Unhealthy | Exit::NotStarted => match max {
            Some(max) if seen.count >= max => Decision::GiveUp(GiveUp::Used(max)),
            _ if seen.failures.len() >= FAILURES => Decision::GiveUp(GiveUp::CrashLoop),
            _ => Decision::RestartAt(now.saturating_add(pause(seen.count))),
        },
    }
}

/// After so many pauses before this one.
fn pause(before: u32) -> u64 {
    let doubled = 1_u64.checked_shl(before).unwrap_or(u64::MAX);
    FIRST_PAUSE_MS.saturating_mul(doubled).min(LONGEST_PAUSE_MS)
}

impl RestartHistory {
    /// What is known once this has happened, before anything is decided.
    fn seen(&self, exit: Exit, now: u64) -> Self {
        let mut seen = match (exit, self.up_unix_ms) {
            (Exit::HostRestarted { .. }, _) => return Self::default(),
            (_, Some(up)) if now.saturating_sub(up) >= SOUND_MS => Self::default(),
            _ => self.clone(),
        };
        seen.next_unix_ms = None;
        if exit == Exit::Held {
            seen.held = seen.held.saturating_add(1);
            return seen;
        }
        seen.held = 0;
        // A clock that went back leaves failures in the future: they count as of now.
        seen.failures.retain(|at| now.saturating_sub(*at) < WINDOW_MS);
        seen.failures.push(now);
        let old = seen.failures.len().saturating_sub(FAILURES);
        seen.failures.drain(..old);
        seen.up_unix_ms = None;
        seen
    }

    /// The history once that is decided.
    #[must_use]
    pub fn after(&self, exit: Exit, decision: Decision, now: u64) -> Self {
        let seen = self.seen(exit, now);
        match decision {
            Decision::Leave => Self::default(),
            Decision::GiveUp(_) => Self { next_unix_ms: None, ..seen },
            Decision::RestartAt(at) => {
                let counts = matches!(exit, Exit::Died | Exit::Unhealthy | Exit::NotStarted);
                let count = seen.count.saturating_add(counts.into());
                Self { count, next_unix_ms: Some(at), ..seen }
            }
        }
    }

    /// It is up, or healthy again.
    pub fn came_up(&mut self, now: u64) {
        (self.next_unix_ms, self.held, self.up_unix_ms) = (None, 0, Some(now));
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: None } => f.write_str("on-failure"),
            Self::OnFailure { max: Some(max) } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not no, on-failure, on-failure:N (N at least 1) or always")]
pub struct ParsePolicyError(String);

impl FromStr for RestartPolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let bad = || ParsePolicyError(text.to_owned());
        Ok(match text.split_once(':') {
            None if text == "no" => Self::No,
            None if text == "on-failure" => Self::OnFailure { max: None },
            None if text == "always" => Self::Always,
            Some(("on-failure", max)) => {
                let max = max.parse().ok().filter(|max| *max > 0).ok_or_else(bad)?;
                Self::OnFailure { max: Some(max) }
            }
            _ => return Err(bad()),
        })
    }
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
