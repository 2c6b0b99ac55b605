//! Each way in which ledger and host can disagree, and what is made of it.

use ResourceKind as K;

use super::*;

const WEB: VmId = VmId([1; 16]);
const GONE: VmId = VmId([2; 16]);
const DATA: [K; 2] = [K::VmDir, K::Memory];

fn books(state: VmState, busy: bool) -> Books {
    let brief = VmBrief { name: "web".to_owned(), state, busy };
    Books { vms: [(WEB, brief)].into(), ..Books::default() }
}

fn thing(kind: K, vm: Option<VmId>) -> Thing {
    Thing { kind, name: format!("a {kind}"), vm }
}

fn row(kind: K, vm: VmId) -> LedgerRow {
    LedgerRow { vm, kind, name: format!("a {kind}"), op: None, unix_ms: 1 }
}

fn seen(things: impl IntoIterator<Item = Thing>) -> HostSeen {
    HostSeen { things: things.into_iter().collect(), ..HostSeen::default() }
}

fn only(found: Vec<Mismatch>) -> Mismatch {
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

const STATES: [VmState; 9] = [
    VmState::Created,
    VmState::Starting,
    VmState::Running,
    VmState::Stopping,
    VmState::Stopped,
    VmState::Crashed,
    VmState::Error,
    VmState::Suspending,
    VmState::Suspended,
];

#[test]
fn what_agrees_is_no_mismatch() {
    for state in STATES {
        let mut books = books(state, false);
        books.rows = K::OF_VMS.map(|kind| row(kind, WEB)).into();
        books.taps = vec![(TapName("a tap".to_owned()), is_on(state).then_some(WEB))];
        let things = K::OF_VMS.map(|kind| thing(kind, Some(WEB)));
        let all = things.into_iter().chain([thing(K::Tap, None)]);
        assert_eq!(compare(&books, &seen(all)), [], "{state}");
    }
}

#[test]
fn a_thing_of_nobody_is_an_orphan_to_be_removed() {
    let books = books(VmState::Running, false);
    for kind in K::ALL {
        let in_directory = matches!(kind, K::Config | K::Memory);
        for vm in [None, Some(GONE)] {
            let found = compare(&books, &seen([thing(kind, vm)]));
            if in_directory {
                assert_eq!(found, [], "{kind} goes with the directory");
                continue;
            }
            let found = only(found);
            assert_eq!((found.amiss, &found.cure), (Amiss::Orphan, &Cure::Remove), "{kind}");
            assert!(!found.why.is_empty() && found.vm_name.is_none());
        }
    }
}

#[test]
fn of_a_known_vm_without_a_row_all_is_removed_but_its_data_and_what_it_runs_on() {
    for state in STATES {
        for kind in K::OF_VMS {
            let seen = seen([thing(kind, Some(WEB))]);
            let (found, data) = (compare(&books(state, false), &seen), DATA.contains(&kind));
            if state == VmState::Error && !data {
                assert_eq!(found, [], "{kind}: its recovery takes it");
                continue;
            }
            let found = only(found);
            let held = data || (is_on(state) && kind != K::Nat);
            let cure = if held { Cure::Record } else { Cure::Remove };
            assert_eq!((found.amiss, found.cure), (Amiss::Orphan, cure), "{kind} {state}");
            assert_eq!(found.vm_name.as_deref(), Some("web"));
            assert_eq!(compare(&books(state, true), &seen), [], "{kind}: busy");
        }
    }
}

#[test]
fn a_row_without_its_thing_is_lost_and_what_follows_depends_on_the_vm() {
    for state in STATES {
        for kind in K::OF_VMS {
            let mut books = books(state, false);
            books.rows = vec![row(kind, WEB)];
            let found = compare(&books, &HostSeen::default());
            if state == VmState::Error {
                assert_eq!(found, [], "its rows name what may be left");
                continue;
            }
            let found = only(found);
            assert_eq!(found.amiss, Amiss::Lost);
            match (&found.cure, kind) {
                (Cure::Leave(way), K::VmDir | K::Memory) => assert!(way.contains("banger vm")),
                (Cure::Mended, K::Nat) if is_on(state) => {}
                (Cure::Leave(way), _) if is_on(state) => assert!(way.contains("restart web")),
                (Cure::Strike, _) if !is_on(state) => {}
                other => panic!("{state} {other:?}"),
            }
            let blind = HostSeen { blind: [kind].into(), ..HostSeen::default() };
            assert_eq!(compare(&books, &blind), [], "{kind} cannot be seen here");
            books.vms.get_mut(&WEB).unwrap().busy = true;
            assert_eq!(compare(&books, &HostSeen::default()), [], "{kind}: busy");
        }
    }
}

#[test]
fn rows_of_a_vm_that_is_gone_go() {
    let mut books = books(VmState::Running, false);
    books.rows = vec![row(K::RunDir, GONE)];
    assert_eq!(only(compare(&books, &HostSeen::default())).cure, Cure::Strike);
    let there = seen([thing(K::RunDir, Some(GONE))]);
    assert_eq!(only(compare(&books, &there)).cure, Cure::Remove);
}

#[test]
fn taps_are_compared_by_name_and_leases_by_state() {
    let tap = |vm| vec![(TapName("a tap".to_owned()), vm)];
    let there = seen([thing(K::Tap, None)]);
    for state in STATES {
        let books = Books { taps: tap(Some(WEB)), ..books(state, false) };
        let found = compare(&books, &there);
        match (is_on(state) || state == VmState::Error, found.first()) {
            (true, None) => {}
            (false, Some(found)) => assert_eq!(found.cure, Cure::Strike, "{state} leases none"),
            other => panic!("{state}: {other:?}"),
        }
    }
    let free = Books { taps: tap(None), ..Books::default() };
    assert_eq!(compare(&free, &there), []);
    assert_eq!(only(compare(&free, &HostSeen::default())).cure, Cure::Mended);
    let lost = Books { taps: tap(Some(WEB)), ..books(VmState::Running, false) };
    assert!(matches!(only(compare(&lost, &HostSeen::default())).cure, Cure::Leave(_)));
    let gone = Books { taps: tap(Some(GONE)), ..Books::default() };
    assert_eq!(only(compare(&gone, &there)).cure, Cure::Remove);
}

#[test]
fn what_carries_no_mark_of_ours_counts_only_as_a_known_vms() {
    let books = books(VmState::Stopped, false);
    let unmarked = [thing(K::Process, Some(WEB)), thing(K::Process, Some(GONE))];
    let seen = HostSeen { unmarked: unmarked.into(), ..HostSeen::default() }.of(&books);
    assert_eq!(seen.things, [thing(K::Process, Some(WEB))].into());
    let run = Thing { kind: K::RunDir, name: WEB.short(), vm: None };
    let seen = HostSeen { things: [run].into(), ..HostSeen::default() }.of(&books);
    assert_eq!(seen.things.first().unwrap().vm, Some(WEB));
}

#[test]
fn nothing_that_a_vm_needs_or_that_is_data_may_be_collected() {
    for state in STATES {
        for kind in K::ALL {
            for has_row in [false, true] {
                let may = may_collect(kind, state, has_row);
                assert!(!may || !DATA.contains(&kind), "{kind}");
                assert!(!may || !is_on(state) || (kind == K::Nat && !has_row), "{state} {kind}");
                assert!(!may || state != VmState::Error);
            }
        }
    }
    assert!(may_collect(K::Nat, VmState::Suspended, true));
}

#[test]
fn every_cure_says_what_it_does() {
    let cures = [Cure::Remove, Cure::Strike, Cure::Record, Cure::Mended, Cure::Leave("x".into())];
    for cure in cures {
        assert_eq!(cure.acts(), !cure.to_string().starts_with("nothing"), "{cure}");
    }
}
