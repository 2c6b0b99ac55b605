//! Time, so that tests can own it.

/// Wall-clock time only; waiting uses tokio's timers, which tests can pause.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn unix_ms(&self) -> u64;
}
