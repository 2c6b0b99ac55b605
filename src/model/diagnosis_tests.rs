//! Each state, each code and each condition has a way out, and what runs well is left alone.

use super::*;
use crate::model::{
    Condition, Digest, Failure, LedgerRow, OpId, OpKind, ResourceKind, RestartHistory,
    RestartPolicy, RootDisk, Size, VmHandles, VmId, VmKeys, VmRecord, VmSpec, VmmChoice, Wanted,
};

const CONDITIONS: [ConditionKind; 7] = [
    ConditionKind::Unhealthy,
    ConditionKind::Network,
    ConditionKind::Unresponsive,
    ConditionKind::VmmStopped,
    ConditionKind::NoHelper,
    ConditionKind::Paused,
    ConditionKind::HostFull,
];

fn view(state: VmState) -> VmView {
    let record = VmRecord {
        id: VmId([7; 16]),
        spec: VmSpec {
            name: "web".parse().unwrap(),
            image: "debian".to_owned(),
            kernel: "debian".to_owned(),
            vcpu: 1,
            memory_mib: 128,
            disk: Size::from_mib(1024),
            work_disk: Size::from_mib(1024),
            nat: true,
            env: vec![],
            vmm: VmmChoice::Auto,
            root: RootDisk::default(),
            console: false,
            warm: false,
            restart: RestartPolicy::No,
            health: None,
        },
        state,
        address: [172, 16, 0, 2].into(),
        image: Digest([1; 32]),
        kernel: Digest([2; 32]),
        keys: VmKeys {
            host_private: String::new(),
            host_public: String::new(),
            client_private: String::new(),
            client_public: String::new(),
        },
        created_unix_ms: 1,
        last_failure: None,
        last_exit: None,
        wanted: Wanted::Stopped,
        restarts: RestartHistory::default(),
    };
    VmView {
        record,
        handles: VmHandles::default(),
        generation: 1,
        busy: None,
        conditions: vec![],
        health: None,
    }
}

fn of(view: &VmView) -> Situation<'_> {
    Situation {
        view,
        quarantined: false,
        tap_lost: false,
        abandoned: None,
        stuck: None,
        rows: &[],
        lease: None,
    }
}

fn condition(kind: ConditionKind) -> Condition {
    let exit = format!("the exit of {kind}");
    Condition { kind, reason: "it is so".to_owned(), since_unix_ms: 1, exit }
}

/// Something is done, or somebody is told what to do.
#[track_caller]
fn has_exit(found: &Diagnosis, what: &str) {
    assert!(!found.found.is_empty() && found.found.iter().all(|line| !line.is_empty()), "{what}");
    let done = !matches!(found.action, RecoverAction::None | RecoverAction::Elsewhere);
    assert_eq!(done, !found.steps.is_empty(), "{what}: {found:?}");
    assert!(done || found.exit.is_some(), "{what} has no exit: {found:?}");
}

#[test]
fn every_failure_of_a_broken_vm_has_an_exit() {
    for code in Code::ALL {
        for state in [VmState::Error, VmState::Crashed] {
            let mut view = view(state);
            view.record.last_failure = Some(Failure::new(code, format!("failed by {code}")));
            let found = diagnose(&of(&view));
            has_exit(&found, &format!("{state} {code}"));
            assert_eq!(found.action, RecoverAction::CleanUp, "{state} {code}");
            assert!(found.exit.is_some(), "{code}: what comes then");
            assert!(found.steps.iter().any(|step| step.contains("disks")), "{code}");
        }
        // Off and whole again: told, and not touched.
        let mut view = view(VmState::Stopped);
        view.record.last_failure = Some(Failure::new(code, format!("failed by {code}")));
        let found = diagnose(&of(&view));
        assert_eq!(found.action, RecoverAction::None);
        assert!(found.found[1].contains(&format!("failed by {code}")));
    }
}

#[test]
fn every_condition_of_what_runs_has_an_exit() {
    for kind in CONDITIONS {
        let mut view = view(VmState::Running);
        view.conditions = vec![condition(kind)];
        let whole = diagnose(&of(&view));
        let lost = diagnose(&Situation { tap_lost: true, ..of(&view) });
        for found in [&whole, &lost] {
            has_exit(found, kind.as_str());
            assert!(found.found[0].contains(kind.as_str()), "{found:?}");
        }
        let action = match kind {
            // A new one does not compile until it has its line.
            ConditionKind::NoHelper | ConditionKind::Paused | ConditionKind::HostFull => {
                RecoverAction::Elsewhere
            }
            ConditionKind::VmmStopped => RecoverAction::Continue,
            ConditionKind::Network => {
                assert_eq!(whole.action, RecoverAction::Elsewhere, "the bridge is nobody's VM");
                RecoverAction::Restart
            }
            ConditionKind::Unhealthy | ConditionKind::Unresponsive => RecoverAction::Restart,
        };
        assert_eq!(lost.action, action, "{kind}");
    }
}

#[test]
fn what_others_follow_from_is_dealt_with_first() {
    let mut view = view(VmState::Running);
    view.conditions = CONDITIONS.map(condition).into();
    assert_eq!(diagnose(&of(&view)).action, RecoverAction::Elsewhere, "nothing without the helper");
    view.conditions.retain(|seen| seen.kind != ConditionKind::NoHelper);
    let found = diagnose(&of(&view));
    assert_eq!(found.action, RecoverAction::Continue, "a stopped VMM answers nothing");
    assert_eq!(found.found.len(), 6, "all are told");
}

#[test]
fn what_is_well_or_goes_by_itself_is_left_alone() {
    use VmState as S;
    for state in [S::Created, S::Starting, S::Running, S::Stopping, S::Stopped, S::Suspended] {
        let found = diagnose(&of(&view(state)));
        assert_eq!((found.action, found.steps.len()), (RecoverAction::None, 0), "{state}");
        assert!(found.found[0].contains("nothing is wrong"), "{found:?}");
    }
    let mut due = view(VmState::Crashed);
    due.record.restarts.next_unix_ms = Some(5);
    assert_eq!(diagnose(&of(&due)).action, RecoverAction::None, "its policy deals with it");
    let mut busy = view(VmState::Error);
    busy.busy = Some((OpId([1; 16]), OpKind::StopVm));
    let found = diagnose(&of(&busy));
    assert_eq!(found.action, RecoverAction::None);
    assert!(found.exit.unwrap().contains("ops watch"));
}

#[test]
fn a_vm_without_an_actor_or_an_end_has_an_exit() {
    let view = view(VmState::Running);
    let found = diagnose(&Situation { quarantined: true, ..of(&view) });
    assert_eq!(found.action, RecoverAction::Revive);
    has_exit(&found, "quarantined");
    let op = OpRecord {
        id: OpId([1; 16]),
        kind: OpKind::StopVm,
        vm: Some(view.record.id),
        subject: "web".to_owned(),
        request_hash: 0,
        started_unix_ms: 1,
        ended_unix_ms: None,
        outcome: None,
    };
    has_exit(&diagnose(&Situation { abandoned: Some(&op), ..of(&view) }), "abandoned");
}

#[test]
fn a_stuck_undo_is_told_with_what_is_left() {
    let view = view(VmState::Error);
    let stuck = OpRecord {
        id: OpId([1; 16]),
        kind: OpKind::StartVm,
        vm: Some(view.record.id),
        subject: "web".to_owned(),
        request_hash: 0,
        started_unix_ms: 1,
        ended_unix_ms: Some(2),
        outcome: Some(Outcome::Stuck {
            step: "allow-nat".to_owned(),
            cause: "refused".to_owned(),
            undo: "refused again".to_owned(),
        }),
    };
    let row = |kind| LedgerRow { vm: view.record.id, kind, name: "n".into(), op: None, unix_ms: 1 };
    let rows = [row(ResourceKind::Nat), row(ResourceKind::Memory)];
    let found = diagnose(&Situation { stuck: Some(&stuck), rows: &rows, ..of(&view) });
    let told = found.found.join("\n");
    assert!(told.contains("allow-nat") && told.contains("refused again"), "{told}");
    let steps = found.steps.join("\n");
    assert!(steps.contains("\ntake away its NAT rule\nmake sure: give back its tap\n"), "{steps}");
    assert!(steps.contains("throw away what was saved of its memory"), "{steps}");
}
