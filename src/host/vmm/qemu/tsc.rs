//! The rate of the host's time stamp counter, told to guests that are emulated.
//!
//! Under TCG the guest reads the host's counter. Its kernel must learn the counter's rate, and the
//! microvm machine leaves it the interval timer alone to measure by. That measurement fails
//! whenever the host is busy, the kernel then has no clock at all, and the boot hangs for ever in
//! "Calibrating delay loop". The host has all the time it needs to measure, and does it once.

use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::host::facts::CpuFacts;

/// A reading costs some 50 ns, so over this time the rate is right to a few parts in a million.
const LEAST: Duration = Duration::from_millis(20);
/// No processor is outside; a result that is comes from a counter that is not steady.
const PLAUSIBLE_KHZ: std::ops::RangeInclusive<u64> = 100_000..=10_000_000;

#[derive(Debug)]
pub(super) struct TscRate {
    first: Option<Sample>,
    khz: OnceCell<Option<u64>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    ticks: u64,
}

impl TscRate {
    /// Takes the first reading; the second comes when the rate is asked for.
    pub(super) fn new() -> Self {
        let steady = CpuFacts::read().is_ok_and(|cpu| cpu.steady_tsc);
        Self { first: if steady { sample() } else { None }, khz: OnceCell::new() }
    }

    /// `None` where the counter does not run at one steady rate.
    pub(super) async fn khz(&self) -> Option<u64> {
        let first = self.first?;
        *self
            .khz
            .get_or_init(|| async {
                tokio::time::sleep(LEAST.saturating_sub(first.at.elapsed())).await;
                rate_khz(first, sample()?)
            })
            .await
    }
}

fn rate_khz(first: Sample, last: Sample) -> Option<u64> {
    let nanos = last.at.checked_duration_since(first.at)?.as_nanos();
    let ticks = u128::from(last.ticks.checked_sub(first.ticks)?);
    let khz = u64::try_from((ticks * 1_000_000).checked_div(nanos)?).ok()?;
    PLAUSIBLE_KHZ.contains(&khz).then_some(khz)
}

/// The tightest of a few readings: one that was interrupted between clock and counter is wrong.
#[cfg(target_arch = "x86_64")]
fn sample() -> Option<Sample> {
    let tries = (0..16).map(|_| {
        let before = Instant::now();
        #[allow(unsafe_code, reason = "the counter can be read no other way")]
        // SAFETY: RDTSC exists on every x86-64 processor and touches no memory.
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        let spent = before.elapsed();
        (spent, Sample { at: before + spent / 2, ticks })
    });
    tries.min_by_key(|(spent, _)| *spent).map(|(_, sample)| sample)
}

#[cfg(not(target_arch = "x86_64"))]
fn sample() -> Option<Sample> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_ticks_by_time() {
        let at = Instant::now();
        let first = Sample { at, ticks: 1_000 };
        let later = |ms, ticks| Sample { at: at + Duration::from_millis(ms), ticks };
        assert_eq!(rate_khz(first, later(20, 1_000 + 48_000_000)), Some(2_400_000));
        assert_eq!(rate_khz(first, later(0, 5_000)), None);
        assert_eq!(rate_khz(first, later(20, 900)), None);
        assert_eq!(rate_khz(first, later(20, 1_001)), None);
    }

    #[tokio::test]
    async fn two_measurements_agree() {
        let (a, b) = (TscRate::new(), TscRate::new());
        match (a.khz().await, b.khz().await) {
            (Some(a), Some(b)) => assert!(a.abs_diff(b) * 10_000 < a, "{a} and {b} kHz"),
            (a, b) => assert_eq!(a, b),
        }
    }
}
