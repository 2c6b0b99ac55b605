//! Time, so that tests can own it.

use crate::model::ClockMarks;

/// Wall-clock time, and what tells when it cannot be trusted; waiting uses tokio's timers, which tests
/// can pause.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn unix_ms(&self) -> u64;

    /// All of the host's clocks at this moment.
    fn marks(&self) -> ClockMarks;
}
