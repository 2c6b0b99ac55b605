//! A clock that begins where it was told to and follows tokio's, which tests can pause.

use super::SimWorld;
use crate::ports::Clock;

impl Clock for SimWorld {
    fn unix_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.options.epoch_ms.saturating_add(elapsed)
    }
}
