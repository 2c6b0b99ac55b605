//! Death watch: how a parent learns that a child is down, and what it may do about it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::WeakRecipient;

use super::vm::HeldBack;
use crate::model::{Incarnation, VmId};

/// Sent by a dying VM actor from `stopped()`, which actix also runs while a panic unwinds.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct ChildDown {
    pub(super) vm: VmId,
    pub(super) incarnation: Incarnation,
    pub(super) panicked: bool,
}

/// Sent by a VM's actor when its restart policy's time has come. `held` hears when it could not be.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct StartDue {
    pub(super) vm: VmId,
    pub(super) incarnation: Incarnation,
    pub(super) held: WeakRecipient<HeldBack>,
}

const WINDOW: Duration = Duration::from_secs(60);
const REBUILDS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    RebuildAfter(Duration),
    Quarantine,
}

/// Three rebuilds in a minute, each pause twice the last; then quarantine.
#[derive(Clone, Debug, Default)]
pub struct RestartBudget {
    deaths: VecDeque<Instant>,
}

impl RestartBudget {
    pub fn on_death(&mut self, now: Instant) -> Verdict {
        self.deaths.retain(|death| now.duration_since(*death) < WINDOW);
        self.deaths.push_back(now);
        match u32::try_from(self.deaths.len()) {
            Ok(n @ 1..=REBUILDS) => Verdict::RebuildAfter(FIRST_PAUSE * 2_u32.pow(n - 1)),
            _ => Verdict::Quarantine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_doubles_then_quarantines_then_forgets() {
        let (mut budget, start) = (RestartBudget::default(), Instant::now());
        let verdicts: Vec<_> = (0..4).map(|_| budget.on_death(start)).collect();
        let pauses = [500, 1_000, 2_000].map(|ms| Verdict::RebuildAfter(Duration::from_millis(ms)));
        assert_eq!(verdicts[..3], pauses);
        assert_eq!(verdicts[3], Verdict::Quarantine);
        assert_eq!(budget.on_death(start + WINDOW), pauses[0]);
    }
}
