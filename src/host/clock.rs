//! The host's clocks, the one place that reads them.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::ClockMarks;
use crate::ports::Clock;

/// Seconds since the host's boot, those that it slept too (proc_uptime(5)).
const UPTIME: &str = "/proc/uptime";
/// Monotonic time has no beginning that can be named.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the Clock port's real adapter")]
    fn unix_ms(&self) -> u64 {
        // A clock before 1970 is a clock that was never set; zero says so as well as an error would.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn marks(&self) -> ClockMarks {
        let awake_ms = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Where it cannot be read no sleep is noticed, and nothing else changes.
        let boot_ms = std::fs::read_to_string(UPTIME).ok().and_then(|text| uptime_ms(&text));
        ClockMarks { unix_ms: self.unix_ms(), boot_ms: boot_ms.unwrap_or(awake_ms), awake_ms }
    }
}

fn uptime_ms(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = hundredths.get(..2)?.parse().ok()?;
    Some(seconds.parse::<u64>().ok()?.saturating_mul(1000).saturating_add(hundredths * 10))
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

    #[test]
    fn the_uptime_is_read() {
        assert_eq!(uptime_ms("350735.47 234388.90\n"), Some(350_735_470));
        assert_eq!(uptime_ms("7.05 1.00\n"), Some(7050));
        assert_eq!(uptime_ms("nonsense"), None);
        let first = SystemClock.marks();
        while SystemClock.marks().boot_ms <= first.boot_ms {
            std::thread::yield_now();
        }
        assert_eq!(SystemClock.marks().since(&first), None);
    }
}
