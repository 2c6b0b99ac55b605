//! How a VM is kept running: the options that say it, and how lists show it.

use std::time::Duration;

use crate::cli::commands::parse;
use crate::model::RestartPolicy;
use crate::wire::reply::{UpkeepInfo, VmInfo};
use crate::wire::request::{Health, Upkeep};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct UpkeepArgs {
    /// Start it again when it ends by itself: no, on-failure[:N] or always
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    restart: Option<RestartPolicy>,
    /// Command for `sh -c` in the guest that says whether it does its work; empty for none
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// From one check to the next [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_interval: Option<Duration>,
    /// A check that takes longer has failed [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_timeout: Option<Duration>,
    /// So many failures in a row make it unhealthy, and its policy restarts it [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    health_retries: Option<u32>,
    /// For so long after a start failures do not count [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    health_start_period: Option<Duration>,
}

fn policy(text: &str) -> Result<RestartPolicy, String> {
    text.parse::<RestartPolicy>().map_err(|error| error.to_string())
}

impl UpkeepArgs {
    /// None: nothing was said of it.
    pub(crate) fn upkeep(self) -> Option<Upkeep> {
        let health = Health {
            command: self.health_cmd,
            interval_ms: self.health_interval.map(parse::millis),
            timeout_ms: self.health_timeout.map(parse::millis),
            retries: self.health_retries,
            start_period_ms: self.health_start_period.map(parse::millis),
        };
        let health = (health != Health::default()).then_some(health);
        let upkeep = Upkeep { restart: self.restart.map(Into::into), health };
        (upkeep != Upkeep::default()).then_some(upkeep)
    }
}

/// The state, with what follows from it: `crashed (restart in 4 s)`, `error (crash-loop)`.
pub(crate) fn state(vm: &VmInfo, upkeep: Option<&UpkeepInfo>, now_ms: u64) -> String {
    let state = vm.state.as_str();
    let off = matches!(state, "crashed" | "stopped" | "suspended");
    let next = upkeep.and_then(|upkeep| upkeep.next_start_unix_ms).filter(|_| off);
    let looping = vm.last_failure.as_ref().is_some_and(|failure| failure.code == "crash-loop");
    let wrong = upkeep.map(|upkeep| {
        let kinds: Vec<_> = upkeep.conditions.iter().map(|seen| seen.kind.as_str()).collect();
        kinds.join(", ")
    });
    match (next, wrong) {
        (Some(at), _) => {
            format!("{state} (restart in {} s)", at.saturating_sub(now_ms).div_ceil(1000))
        }
        _ if looping => format!("{state} (crash-loop)"),
        (None, Some(wrong)) if !wrong.is_empty() => format!("{state} ({wrong})"),
        _ => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reply::{ConditionInfo, FailureInfo};

    fn vm(state: &str, failure: Option<&str>) -> VmInfo {
        let failure = failure.map(|code| FailureInfo {
            code: code.to_owned(),
            message: String::new(),
            hints: vec![],
            retryable: false,
            op_id: None,
            detail: vec![],
        });
        VmInfo { state: state.to_owned(), last_failure: failure, ..VmInfo::default() }
    }

    fn kept(next: Option<u64>, wrong: &[&str]) -> UpkeepInfo {
        let condition = |kind: &&str| ConditionInfo {
            kind: (*kind).to_owned(),
            reason: String::new(),
            since_unix_ms: 0,
            exit: String::new(),
        };
        UpkeepInfo {
            id: String::new(),
            restart_policy: "always".to_owned(),
            wanted: "running".to_owned(),
            restarts: 1,
            next_start_unix_ms: next,
            health: None,
            conditions: wrong.iter().map(condition).collect(),
        }
    }

    #[test]
    fn a_state_says_what_follows_from_it() {
        let now = 10_000;
        let due = kept(Some(now + 3100), &[]);
        assert_eq!(state(&vm("crashed", None), Some(&due), now), "crashed (restart in 4 s)");
        assert_eq!(state(&vm("starting", None), Some(&due), now), "starting");
        let looping = vm("error", Some("crash-loop"));
        assert_eq!(state(&looping, Some(&kept(None, &[])), now), "error (crash-loop)");
        let ill = kept(None, &["unhealthy"]);
        assert_eq!(state(&vm("running", None), Some(&ill), now), "running (unhealthy)");
        assert_eq!(state(&vm("running", None), None, now), "running");
    }
}
