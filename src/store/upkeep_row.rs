//! How a VM is kept running, as stored beside its specification.
//!
//! Frozen, as all rows are: see [`super::vm_row`].

use std::time::Duration;

use crate::model::{HealthCheck, RestartHistory, RestartPolicy, VmRecord, VmState, Wanted};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) struct UpkeepV1 {
    pub(super) policy: PolicyV1,
    pub(super) health: Option<HealthV1>,
    pub(super) wanted: WantedV1,
    pub(super) restarts: RestartsV1,
}

#[derive(Encode, Decode)]
pub(super) enum PolicyV1 {
    No,
    OnFailure { max: Option<u32> },
    Always,
}

#[derive(Encode, Decode)]
pub(super) struct HealthV1 {
    command: String,
    interval_ms: u64,
    timeout_ms: u64,
    retries: u32,
    start_period_ms: u64,
}

#[derive(Clone, Copy, Encode, Decode)]
pub(super) enum WantedV1 {
    Stopped,
    Running,
}

#[derive(Default, Encode, Decode)]
pub(super) struct RestartsV1 {
    count: u32,
    failures: Vec<u64>,
    held: u32,
    next_unix_ms: Option<u64>,
    up_unix_ms: Option<u64>,
}

impl UpkeepV1 {
    pub(super) fn of(record: &VmRecord) -> Self {
        Self {
            policy: record.spec.restart.into(),
            health: record.spec.health.clone().map(Into::into),
            wanted: record.wanted.into(),
            restarts: record.restarts.clone().into(),
        }
    }

    /// Of a VM on record before anybody was asked what is wanted: what is on is meant to be.
    pub(super) fn before(state: VmState) -> Self {
        use VmState as S;
        let wanted = match state {
            S::Starting | S::Running => WantedV1::Running,
            S::Created | S::Stopping | S::Stopped | S::Crashed | S::Error => WantedV1::Stopped,
            S::Suspending | S::Suspended => WantedV1::Stopped,
        };
        Self { policy: PolicyV1::No, health: None, wanted, restarts: RestartsV1::default() }
    }
}

impl From<RestartPolicy> for PolicyV1 {
    fn from(policy: RestartPolicy) -> Self {
        match policy {
            RestartPolicy::No => Self::No,
            RestartPolicy::OnFailure { max } => Self::OnFailure { max },
            RestartPolicy::Always => Self::Always,
        }
    }
}

impl From<PolicyV1> for RestartPolicy {
    fn from(stored: PolicyV1) -> Self {
        match stored {
            PolicyV1::No => Self::No,
            PolicyV1::OnFailure { max } => Self::OnFailure { max },
            PolicyV1::Always => Self::Always,
        }
    }
}

impl From<HealthCheck> for HealthV1 {
    fn from(check: HealthCheck) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            command: check.command,
            interval_ms: millis(check.interval),
            timeout_ms: millis(check.timeout),
            retries: check.retries,
            start_period_ms: millis(check.start_period),
        }
    }
}

impl From<HealthV1> for HealthCheck {
    fn from(stored: HealthV1) -> Self {
        Self {
            command: stored.command,
            interval: Duration::from_millis(stored.interval_ms),
            timeout: Duration::from_millis(stored.timeout_ms),
            retries: stored.retries,
            start_period: Duration::from_millis(stored.start_period_ms),
        }
    }
}

impl From<Wanted> for WantedV1 {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Stopped => Self::Stopped,
            Wanted::Running => Self::Running,
        }
    }
}

impl From<WantedV1> for Wanted {
    fn from(stored: WantedV1) -> Self {
        match stored {
            WantedV1::Stopped => Self::Stopped,
            WantedV1::Running => Self::Running,
        }
    }
}

impl From<RestartHistory> for RestartsV1 {
    fn from(history: RestartHistory) -> Self {
        let RestartHistory { count, failures, held, next_unix_ms, up_unix_ms } = history;
        Self { count, failures, held, next_unix_ms, up_unix_ms }
    }
}

impl From<RestartsV1> for RestartHistory {
    fn from(stored: RestartsV1) -> Self {
        let RestartsV1 { count, failures, held, next_unix_ms, up_unix_ms } = stored;
        Self { count, failures, held, next_unix_ms, up_unix_ms }
    }
}
