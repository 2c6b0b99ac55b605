//! A command in the guest that says whether it does its work.

use std::time::Duration;

/// What is run, how often, and when it is too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// For `/bin/sh -c` in the guest; exit status 0 is healthy.
    pub command: String,
    /// From the end of one to the beginning of the next.
    pub interval: Duration,
    /// One that takes longer has failed.
    pub timeout: Duration,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
    /// After its start failures do not count for so long, unless it was healthy already.
    pub start_period: Duration,
}

impl HealthCheck {
    /// Every 30 s, 30 s at most, three failures, no time to start.
    #[must_use]
    pub fn of(command: String) -> Self {
        let half_a_minute = Duration::from_secs(30);
        Self {
            command,
            interval: half_a_minute,
            timeout: half_a_minute,
            retries: 3,
            start_period: Duration::ZERO,
        }
    }
}

/// How the checks of a VM that runs have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub status: HealthStatus,
    /// In a row.
    pub failures: u32,
    pub last: Option<HealthRun>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Nothing is known yet, or the failures do not count yet.
    #[default]
    Starting,
    Healthy,
    /// It failed, and not often enough.
    Failing,
    Unhealthy,
}

impl HealthStatus {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRun {
    pub unix_ms: u64,
    pub healthy: bool,
    /// `exit status 1`, `killed by signal 9`, `no answer within 5s`.
    pub how: String,
    /// The end of what it printed.
    pub output: String,
}

impl Health {
    /// `early`: the guest is in its start period, in which failures do not count unless it was
    /// healthy before.
    #[must_use]
    pub fn after(self, run: HealthRun, check: &HealthCheck, early: bool) -> Self {
        let forgiven = early && self.status == HealthStatus::Starting;
        let failures = match (run.healthy, forgiven) {
            (true, _) | (_, true) => 0,
            (false, false) => self.failures.saturating_add(1),
        };
        let status = match failures {
            0 if run.healthy => HealthStatus::Healthy,
            0 => HealthStatus::Starting,
            n if n >= check.retries => HealthStatus::Unhealthy,
            _ => HealthStatus::Failing,
        };
        Self { status, failures, last: Some(run) }
    }
}

/// What is to be different; the rest stays, or is as usual where there was no check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChange {
    /// Empty: no more checks.
    pub command: Option<String>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    #[error("a health check has a command; there is none")]
    NoCommand,
    #[error("the health command has {0} bytes, at most {MAX_COMMAND} are allowed")]
    LongCommand(usize),
    #[error("{what} of {asked:?} is not between {min:?} and {max:?}")]
    Time { what: &'static str, asked: Duration, min: Duration, max: Duration },
    #[error("health retries must be 1 to 100")]
    Retries,
}

const MAX_COMMAND: usize = 4096;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl HealthChange {
    /// The check as it is to be; none if there is to be none.
    pub fn apply(self, before: Option<&HealthCheck>) -> Result<Option<HealthCheck>, HealthError> {
        let Self { command, interval, timeout, retries, start_period } = self;
        if command.as_deref() == Some("") {
            return Ok(None);
        }
        let usual = match (command, before) {
            (Some(command), Some(before)) => HealthCheck { command, ..before.clone() },
            (Some(command), None) => HealthCheck::of(command),
            (None, Some(before)) => before.clone(),
            (None, None) => return Err(HealthError::NoCommand),
        };
        let check = HealthCheck {
            interval: interval.unwrap_or(usual.interval),
            timeout: timeout.unwrap_or(usual.timeout),
            retries: retries.unwrap_or(usual.retries),
            start_period: start_period.unwrap_or(usual.start_period),
            command: usual.command,
        };
        check.check()?;
        Ok(Some(check))
    }
}

impl HealthCheck {
    pub(super) fn check(&self) -> Result<(), HealthError> {
        if self.command.is_empty() || self.command.contains('\0') {
            return Err(HealthError::NoCommand);
        }
        if self.command.len() > MAX_COMMAND {
            return Err(HealthError::LongCommand(self.command.len()));
        }
        for (what, asked, min, max) in [
            ("health interval", self.interval, SECOND, DAY),
            ("health timeout", self.timeout, SECOND, HOUR),
            ("health start period", self.start_period, Duration::ZERO, DAY),
        ] {
            if asked < min || asked > max {
                return Err(HealthError::Time { what, asked, min, max });
            }
        }
        if !(1..=100).contains(&self.retries) {
            return Err(HealthError::Retries);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_and_an_empty_command_ends_it() {
        let command =
            |text: &str| HealthChange { command: Some(text.into()), ..HealthChange::default() };
        let first = command("true").apply(None).unwrap().unwrap();
        assert_eq!(first, HealthCheck::of("true".to_owned()));
        let slower = HealthChange { interval: Some(HOUR), ..HealthChange::default() };
        let second = slower.clone().apply(Some(&first)).unwrap().unwrap();
        assert_eq!((second.interval, second.command.as_str()), (HOUR, "true"));
        let third = command("false").apply(Some(&second)).unwrap().unwrap();
        assert_eq!((third.interval, third.command.as_str()), (HOUR, "false"));
        assert_eq!(command("").apply(Some(&third)), Ok(None));
        assert_eq!(slower.apply(None), Err(HealthError::NoCommand));
    }

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy_but_not_while_it_starts() {
        let check = HealthCheck { retries: 2, ..HealthCheck::of("true".to_owned()) };
        let run =
            |healthy| HealthRun { unix_ms: 1, healthy, how: String::new(), output: String::new() };
        let all = |runs: &[(bool, bool)]| {
            let after = |health: Health, (healthy, early): &(bool, bool)| {
                health.after(run(*healthy), &check, *early)
            };
            let health = runs.iter().fold(Health::default(), after);
            (health.status, health.failures)
        };
        let (late, early) = (false, true);
        assert_eq!(all(&[(false, late)]), (HealthStatus::Failing, 1));
        assert_eq!(all(&[(false, late), (false, late)]), (HealthStatus::Unhealthy, 2));
        assert_eq!(all(&[(false, late), (true, late)]), (HealthStatus::Healthy, 0));
        assert_eq!(all(&[(false, early), (false, early)]), (HealthStatus::Starting, 0));
        let was_up = [(true, early), (false, early), (false, early)];
        assert_eq!(all(&was_up), (HealthStatus::Unhealthy, 2), "it had started");
        let again = [(false, late), (false, late), (true, late)];
        assert_eq!(all(&again), (HealthStatus::Healthy, 0));
    }

    #[test]
    fn bounds_are_checked() {
        let with = |change: HealthChange| change.apply(Some(&HealthCheck::of("true".to_owned())));
        let change = HealthChange::default;
        for bad in [
            HealthChange { interval: Some(Duration::ZERO), ..change() },
            HealthChange { timeout: Some(2 * HOUR), ..change() },
            HealthChange { retries: Some(0), ..change() },
            HealthChange { command: Some("x".repeat(5000)), ..change() },
            HealthChange { start_period: Some(2 * DAY), ..change() },
        ] {
            assert!(with(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
