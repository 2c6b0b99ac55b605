//! What went wrong on the way, and whether it is worth another try.

use std::time::Duration;

use super::http::Side;
use crate::model::Code;
use crate::ports::HostError;

/// Whoever is asked to wait longer is told so instead.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long the other side is borne with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without success, in a row.
    pub(super) tries: u32,
    /// Before the second try; each is twice the last.
    pub(super) first_pause: Duration,
    /// Without a byte.
    pub(super) silence: Duration,
}

impl Patience {
    pub(super) fn new(tries: u32) -> Self {
        Self { tries, first_pause: Duration::from_millis(250), silence: Duration::from_secs(30) }
    }
}

#[derive(Debug)]
pub(super) enum Trouble {
    /// It may be over when it is tried again, after so long if the other side said.
    Passing(Box<HostError>, Option<Duration>),
    Lasting(Box<HostError>),
}

impl Trouble {
    pub(super) fn passing(error: HostError) -> Self {
        Self::Passing(Box::new(error), None)
    }

    pub(super) fn lasting(error: HostError) -> Self {
        Self::Lasting(Box::new(error))
    }
}

/// Tries without success, in a row.
#[derive(Debug)]
pub(super) struct Tries {
    left: u32,
    patience: Patience,
}

impl Tries {
    pub(super) fn new(patience: Patience) -> Self {
        Self { left: patience.tries, patience }
    }

    /// Something was won.
    pub(super) fn renew(&mut self) {
        self.left = self.patience.tries;
    }

    /// How long to wait before the next one, or the error that ends it.
    pub(super) fn after(&mut self, trouble: Trouble) -> Result<(Duration, HostError), HostError> {
        let (error, asked) = match trouble {
            Trouble::Lasting(error) => return Err(*error),
            Trouble::Passing(error, asked) => (*error, asked),
        };
        if let Some(asked) = asked.filter(|asked| *asked > LONGEST_WAIT) {
            let minutes = asked.as_secs().div_ceil(60);
            return Err(
                error.hint(format!("whoever has it asks to be left alone for {minutes} min"))
            );
        }
        let Patience { tries, first_pause, .. } = self.patience;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            let hint = format!("given up after {tries} tries; what came is kept: ask again");
            return Err(error.hint(hint));
        }
        let doubled = first_pause * 2_u32.saturating_pow((tries - self.left - 1).min(16));
        Ok((asked.unwrap_or_else(|| spread(doubled.min(LONGEST_PAUSE))), error))
    }
}

/// Half of it at least: many that failed at one time do not come back at one time.
fn spread(pause: Duration) -> Duration {
    let mut dice = [0];
    if getrandom::fill(&mut dice).is_err() {
        dice = [128];
    }
    pause.mul_f64(0.5 + f64::from(dice[0]) / 512.0)
}

/// What a status says of a request that brought nothing.
pub(super) fn of_status(
    status: u16,
    side: Side,
    error: impl FnOnce(Code) -> HostError,
    wait: Option<Duration>,
) -> Trouble {
    match status {
        401 | 403 if side == Side::Registry => Trouble::lasting(error(Code::Denied).hint(LOGIN)),
        401 | 403 => Trouble::lasting(error(Code::Denied)),
        404 if side == Side::Registry => Trouble::lasting(error(Code::NotFound).hint(SPELLING)),
        404 | 410 => Trouble::lasting(error(Code::NotFound)),
        408 | 425 | 429 | 500..=599 => Trouble::Passing(Box::new(error(Code::Host)), wait),
        _ => Trouble::lasting(error(Code::Refused)),
    }
}

pub(super) const LOGIN: &str = "if the image is private, or there is none: log in as the daemon's user with \
     `podman login` or `docker login`, or name a file in [registries] auth_file";
const SPELLING: &str = "see whether the registry has it under this name";

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(asked: Option<Duration>) -> Trouble {
        Trouble::Passing(Box::new(HostError::new(Code::Host, "pull", "x")), asked)
    }

    #[test]
    fn tries_are_bounded_and_further_and_further_apart() {
        let mut tries = Tries::new(Patience::new(10));
        let mut pauses = vec![];
        let last = loop {
            match tries.after(passing(None)) {
                Ok((pause, _)) => pauses.push(pause),
                Err(error) => break error,
            }
        };
        assert!(last.hints[0].contains("after 10 tries"), "{last:?}");
        assert_eq!(pauses.len(), 9);
        let first = Patience::new(10).first_pause;
        assert!(pauses[0] <= first && pauses[4] > first * 4, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        tries.renew();
        assert!(tries.after(passing(None)).is_ok());
    }

    #[test]
    fn who_says_when_to_come_back_is_heard_within_reason() {
        let mut tries = Tries::new(Patience::new(3));
        let soon = Duration::from_secs(3);
        assert_eq!(tries.after(passing(Some(soon))).unwrap().0, soon);
        let late = tries.after(passing(Some(Duration::from_secs(3600)))).unwrap_err();
        assert!(late.hints[0].contains("60 min"), "{late:?}");
        let lasting = Trouble::lasting(HostError::new(Code::NotFound, "pull", "x"));
        assert_eq!(Tries::new(Patience::new(3)).after(lasting).unwrap_err().code, Code::NotFound);
    }
}
