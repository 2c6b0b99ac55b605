//! Clocks that begin where they were told to and follow tokio's, which tests can pause; and a host
//! that can be put to sleep, and whose clock can be set.

use std::sync::atomic::Ordering;

use super::SimWorld;
use crate::model::ClockMarks;
use crate::ports::Clock;

impl Clock for SimWorld {
    fn unix_ms(&self) -> u64 {
        let marks = self.marks();
        marks.unix_ms
    }

    fn marks(&self) -> ClockMarks {
        let awake_ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let boot_ms = awake_ms.saturating_add(self.slept_ms.load(Ordering::SeqCst));
        let set_by_ms = self.set_by_ms.load(Ordering::SeqCst);
        let unix_ms = self.options.epoch_ms.saturating_add(boot_ms);
        ClockMarks { unix_ms: unix_ms.saturating_add_signed(set_by_ms), boot_ms, awake_ms }
    }
}

impl SimWorld {
    /// The host slept, and wakes now.
    pub fn slept(&self, ms: u64) {
        self.slept_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody sets the host's clock.
    pub fn set_clock_by(&self, ms: i64) {
        self.set_by_ms.fetch_add(ms, Ordering::SeqCst);
    }
}
