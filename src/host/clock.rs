//! The host's wall clock, the one place that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::ports::Clock;

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the Clock port's real adapter")]
    fn unix_ms(&self) -> u64 {
        // A clock before 1970 is a clock that was never set; zero says so as well as an error would.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let first = SystemClock.unix_ms();
        assert!(first > 1_600_000_000_000);
        while SystemClock.unix_ms() == first {
            std::hint::spin_loop();
        }
    }
}
