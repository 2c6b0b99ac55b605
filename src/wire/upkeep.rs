//! Between the model and the wire: how VMs are kept running.

use std::time::Duration;

use super::reply::{ConditionInfo, HealthInfo, HealthRunInfo, UpkeepInfo};
use super::request;
use crate::model::{
    Condition, HealthChange, HealthCheck, HealthRun, RestartPolicy, VmState, VmView,
};

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<request::Restart> for RestartPolicy {
    fn from(restart: request::Restart) -> Self {
        match restart {
            request::Restart::No => Self::No,
            request::Restart::OnFailure { max } => Self::OnFailure { max },
            request::Restart::Always => Self::Always,
        }
    }
}

impl From<RestartPolicy> for request::Restart {
    fn from(policy: RestartPolicy) -> Self {
        match policy {
            RestartPolicy::No => Self::No,
            RestartPolicy::OnFailure { max } => Self::OnFailure { max },
            RestartPolicy::Always => Self::Always,
        }
    }
}

impl From<request::Health> for HealthChange {
    fn from(health: request::Health) -> Self {
        Self {
            command: health.command,
            interval: health.interval_ms.map(Duration::from_millis),
            timeout: health.timeout_ms.map(Duration::from_millis),
            retries: health.retries,
            start_period: health.start_period_ms.map(Duration::from_millis),
        }
    }
}

impl From<&VmView> for UpkeepInfo {
    fn from(view: &VmView) -> Self {
        let record = &view.record;
        Self {
            id: record.id.to_string(),
            restart_policy: record.spec.restart.to_string(),
            wanted: record.wanted.as_str().to_owned(),
            restarts: record.restarts.count,
            next_start_unix_ms: record.restarts.next_unix_ms,
            health: record.spec.health.as_ref().map(|check| health(check, view)),
            conditions: view.conditions.iter().map(Into::into).collect(),
        }
    }
}

fn health(check: &HealthCheck, view: &VmView) -> HealthInfo {
    let seen = view.health.clone().unwrap_or_default();
    let runs = view.record.state == VmState::Running;
    HealthInfo {
        command: check.command.clone(),
        interval_ms: millis(check.interval),
        timeout_ms: millis(check.timeout),
        retries: check.retries,
        start_period_ms: millis(check.start_period),
        status: if runs { seen.status.as_str() } else { "off" }.to_owned(),
        failures: seen.failures,
        last: seen.last.map(Into::into),
    }
}

impl From<HealthRun> for HealthRunInfo {
    fn from(run: HealthRun) -> Self {
        Self { unix_ms: run.unix_ms, how: run.how, output: run.output }
    }
}

impl From<&Condition> for ConditionInfo {
    fn from(condition: &Condition) -> Self {
        let Condition { kind, reason, since_unix_ms, exit } = condition.clone();
        Self { kind: kind.to_string(), reason, since_unix_ms, exit }
    }
}
