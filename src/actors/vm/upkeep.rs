//! What becomes of a VM's wish and of its restart policy's history when something happens to it.
//!
//! ```text
//! owner's operation ── up ──────────> wanted running
//!                  └── not up ──────> wanted stopped: whoever asked was told
//! policy's start ──── up ──────────> since when it is up
//!               └──── not up ───────> the policy decides again
//! ```
//!
//! All of it becomes durable with the record, in the job that settles the operation or records the
//! intent of the clean-up: no daemon that dies in between forgets a failure or counts one twice.

use super::messages::{Asker, OpRequest};
use crate::model::{
    Code, Decision, Exit, Failure, GiveUp, RestartPolicy, VmRecord, VmState, Wanted,
};

/// The operation has ended, and the record has the state that it left.
pub(super) fn after_operation(
    record: &mut VmRecord,
    request: &OpRequest,
    by: Asker,
    failure: Option<&Failure>,
    now: u64,
) {
    let brings_up = request.wish() == Some(Wanted::Running);
    match (record.state, by) {
        _ if matches!(request, OpRequest::Set(_) | OpRequest::CleanUp | OpRequest::Collect(_)) => {}
        (VmState::Running, _) => {
            record.wanted = Wanted::Running;
            record.restarts.came_up(now);
        }
        (_, Asker::Owner) if brings_up => record.want(Wanted::Stopped),
        // Nothing is tried again until somebody has dealt with what is stuck.
        (VmState::Error, Asker::Policy) => record.restarts.next_unix_ms = None,
        (_, Asker::Policy) if brings_up => {
            let exit = match failure {
                Some(failure) if is_the_guests(failure.code) => Exit::NotStarted,
                _ => Exit::Held,
            };
            ended(record, exit, now);
        }
        _ => {}
    }
}

/// Whether a start that failed so will fail again, however the host fares.
fn is_the_guests(code: Code) -> bool {
    matches!(
        code,
        Code::GuestDied
            | Code::GuestUnreachable
            | Code::Deadline
            | Code::NotFound
            | Code::Invalid
            | Code::Corrupt
    )
}

/// Lets the policy decide, and shows it when it gives up. A memory that is kept is left alone, and so
/// is a guest that still runs.
pub(super) fn ended(record: &mut VmRecord, exit: Exit, now: u64) -> Decision {
    let decision = record.ended(exit, now);
    if let Decision::GiveUp(why) = decision {
        if !matches!(record.state, VmState::Suspended | VmState::Running) {
            record.state = VmState::Error;
        }
        record.last_failure = Some(given_up(record, why));
    }
    decision
}

fn given_up(record: &VmRecord, why: GiveUp) -> Failure {
    let name = &record.spec.name;
    let message = format!("{name} is not started again: {why}");
    let failure = Failure::new(
        Code::CrashLoop,
        match &record.last_failure {
            Some(last) => format!("{message}; at last: {}", last.message),
            None => message,
        },
    );
    let failure = failure
        .hint(format!("`banger vm logs {name}` shows its console"))
        .hint(format!("`banger vm start {name}` starts it and counts anew"));
    let last = record.last_failure.as_ref();
    Failure {
        detail: last.map(|last| last.detail.clone()).unwrap_or_default(),
        op_id: last.and_then(|last| last.op_id),
        ..failure
    }
}

/// Whose word an operation carried that a crash of the daemon cut short: nobody knows. What has a policy
/// is left to it, so that a start that was wanted is tried again.
pub(super) fn asker_of_what_was_cut_short(record: &VmRecord) -> Asker {
    match record.spec.restart {
        RestartPolicy::No => Asker::Owner,
        RestartPolicy::OnFailure { .. } | RestartPolicy::Always => Asker::Policy,
    }
}

/// After a restart of the host. `on`: the VM was up, or about to be.
pub(super) fn host_restarted(record: &mut VmRecord, on: bool, now: u64) {
    match record.state {
        // Its owner did not suspend it; the host did, when it went down.
        VmState::Suspended if record.wanted == Wanted::Running => {
            record.restarts.next_unix_ms = Some(now);
        }
        VmState::Stopped | VmState::Crashed => {
            let on = on || record.restarts.next_unix_ms.is_some();
            record.ended(Exit::HostRestarted { on }, now);
        }
        _ => {}
    }
}

pub(super) fn said_of_start(record: &VmRecord) -> String {
    let (name, policy, count) = (&record.spec.name, record.spec.restart, record.restarts.count);
    format!("{name} is started by its policy, {policy} (restarts so far: {count})")
}

pub(super) fn said_of(record: &VmRecord, decision: Decision, now: u64) -> Option<String> {
    let name = &record.spec.name;
    match decision {
        Decision::Leave => None,
        Decision::RestartAt(at) => {
            let seconds = at.saturating_sub(now).div_ceil(1000);
            Some(format!("{name} is started again in {seconds} s"))
        }
        Decision::GiveUp(why) => Some(format!("{name} is not started again: {why}")),
    }
}
