//! Every policy against everything that can happen, and what must hold for all histories.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000_000;
const POLICIES: [RestartPolicy; 4] = [
    RestartPolicy::No,
    RestartPolicy::OnFailure { max: None },
    RestartPolicy::OnFailure { max: Some(2) },
    RestartPolicy::Always,
];
const EXITS: [Exit; 6] = [
    Exit::Died,
    Exit::Unhealthy,
    Exit::NotStarted,
    Exit::Held,
    Exit::HostRestarted { on: true },
    Exit::HostRestarted { on: false },
];

/// Decides and keeps the history.
fn step(policy: RestartPolicy, history: &mut RestartHistory, exit: Exit, now: u64) -> Decision {
    let decision = decide(policy, Wanted::Running, history, exit, now);
    *history = history.after(exit, decision, now);
    decision
}

#[test]
fn the_owners_word_and_no_policy_leave_it_off_whatever_happens() {
    for exit in EXITS {
        for policy in POLICIES {
            let history = RestartHistory { count: 1, ..RestartHistory::default() };
            let left = decide(policy, Wanted::Stopped, &history, exit, NOW);
            assert_eq!(left, Decision::Leave, "{policy} {exit:?}");
            assert_eq!(history.after(exit, left, NOW), RestartHistory::default());
        }
        let history = RestartHistory::default();
        let left = decide(RestartPolicy::No, Wanted::Running, &history, exit, NOW);
        assert_eq!(left, Decision::Leave, "{exit:?}");
    }
}

#[test]
fn every_policy_against_every_end() {
    for policy in POLICIES {
        for exit in EXITS {
            let decision = decide(policy, Wanted::Running, &RestartHistory::default(), exit, NOW);
            let expected = match (policy, exit) {
                (RestartPolicy::No, _)
                | (RestartPolicy::OnFailure { .. }, Exit::HostRestarted { on: false }) => {
                    Decision::Leave
                }
                (_, Exit::HostRestarted { .. }) => Decision::RestartAt(NOW),
                _ => Decision::RestartAt(NOW + 1_000),
            };
            assert_eq!(decision, expected, "{policy} {exit:?}");
        }
    }
}

#[test]
fn a_crash_loop_backs_off_and_ends() {
    let (mut history, mut now) = (RestartHistory::default(), NOW);
    let mut pauses = vec![];
    let ended = loop {
        match step(RestartPolicy::Always, &mut history, Exit::Died, now) {
            Decision::RestartAt(at) => {
                pauses.push(at - now);
                assert_eq!(history.next_unix_ms, Some(at));
                now = at;
                history.came_up(now);
            }
            other => break other,
        }
    };
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(ended, Decision::GiveUp(GiveUp::CrashLoop));
    assert_eq!((history.next_unix_ms, history.count), (None, 4));
}

#[test]
fn a_policy_of_n_gives_up_after_n() {
    let mut history = RestartHistory::default();
    let policy = RestartPolicy::OnFailure { max: Some(2) };
    for pause in [1_000, 2_000] {
        assert_eq!(step(policy, &mut history, Exit::Died, NOW), Decision::RestartAt(NOW + pause));
    }
    assert_eq!(
        step(policy, &mut history, Exit::NotStarted, NOW),
        Decision::GiveUp(GiveUp::Used(2))
    );
}

#[test]
fn a_long_run_is_forgotten_for_and_a_short_one_is_not() {
    for (ran, again) in [(SOUND_MS, 1_000), (SOUND_MS - 1, 4_000)] {
        let mut history = RestartHistory::default();
        step(RestartPolicy::Always, &mut history, Exit::Died, NOW);
        step(RestartPolicy::Always, &mut history, Exit::Died, NOW);
        history.came_up(NOW);
        let now = NOW + ran;
        let decision = step(RestartPolicy::Always, &mut history, Exit::Died, now);
        assert_eq!(decision, Decision::RestartAt(now + again), "after {ran} ms");
    }
}

#[test]
fn failures_far_apart_are_no_loop_and_wait_a_minute_at_most() {
    let (mut history, mut now) = (RestartHistory::default(), NOW);
    for n in 0..100 {
        let decision = step(RestartPolicy::Always, &mut history, Exit::Died, now);
        let Decision::RestartAt(at) = decision else { panic!("gave up at {n}") };
        assert!(at - now <= LONGEST_PAUSE_MS);
        history.came_up(at);
        now = at + WINDOW_MS / 4;
    }
    assert_eq!(history.count, 100);
}

#[test]
fn what_the_host_cannot_do_is_tried_for_ever_and_is_no_failure() {
    let mut history = RestartHistory::default();
    let mut pauses = vec![];
    for _ in 0..50 {
        let decision =
            step(RestartPolicy::OnFailure { max: Some(1) }, &mut history, Exit::Held, NOW);
        let Decision::RestartAt(at) = decision else { panic!("{decision:?}") };
        pauses.push(at - NOW);
    }
    assert_eq!(pauses[..7], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]);
    assert_eq!(pauses[49], 60_000);
    assert_eq!((history.count, history.failures.len()), (0, 0));
    history.came_up(NOW);
    assert_eq!(history.held, 0);
}

#[test]
fn policies_read_as_they_are_written() {
    for policy in POLICIES {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    for bad in ["", "yes", "on-failure:", "on-failure:0", "on-failure:-1", "always:3", "No"] {
        assert!(bad.parse::<RestartPolicy>().is_err(), "{bad:?}");
    }
}

fn exits() -> impl Strategy<Value = Exit> {
    proptest::sample::select(EXITS.to_vec())
}

proptest! {
    /// Whatever happens and however the clock jumps: no wait longer than a minute, never more than
    /// four restarts by failure in any ten minutes of a clock that goes on, and a history that does
    /// not grow.
    #[test]
    fn no_history_leads_astray(
        events in proptest::collection::vec((exits(), 0..2 * WINDOW_MS, any::<bool>()), 1..200),
        policy in proptest::sample::select(POLICIES.to_vec()),
    ) {
        let (mut history, mut now) = (RestartHistory::default(), NOW);
        let mut restarts: Vec<u64> = vec![];
        for (exit, later, comes_up) in events {
            now += later;
            let decision = step(policy, &mut history, exit, now);
            prop_assert!(history.failures.len() <= FAILURES);
            match decision {
                Decision::RestartAt(at) => {
                    prop_assert!((now..=now + LONGEST_PAUSE_MS).contains(&at));
                    prop_assert_eq!(history.next_unix_ms, Some(at));
                    if matches!(exit, Exit::Died | Exit::Unhealthy | Exit::NotStarted) {
                        restarts.push(now);
                    } else if matches!(exit, Exit::HostRestarted { .. }) {
                        restarts.clear();
                    }
                    if comes_up {
                        history.came_up(at);
                    }
                }
                Decision::Leave => prop_assert_eq!(&history, &RestartHistory::default()),
                Decision::GiveUp(_) => prop_assert_eq!(history.next_unix_ms, None),
            }
            if history.failures.is_empty() {
                restarts.clear(); // forgotten after a sound run, or a restart of the host
            }
            restarts.retain(|at| now - at < WINDOW_MS);
            prop_assert!(restarts.len() < FAILURES, "{restarts:?} at {now}");
        }
    }

    /// The same for a clock that goes back and forth: nothing is waited for longer than a minute,
    /// and nothing overflows.
    #[test]
    fn no_clock_leads_astray(
        events in proptest::collection::vec((exits(), any::<u64>()), 1..50),
    ) {
        let mut history = RestartHistory::default();
        for (exit, now) in events {
            if let Decision::RestartAt(at) = step(RestartPolicy::Always, &mut history, exit, now) {
                prop_assert!(at.saturating_sub(now) <= LONGEST_PAUSE_MS && at >= now);
                history.came_up(now);
            }
        }
    }
}
