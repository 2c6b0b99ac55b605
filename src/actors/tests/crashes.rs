//! Every kind of operation, cut short at each of its writes and between any two of its effects, and
//! again in the recovery: the next daemon ends it, and the world is what its outcome says.

use super::expected::Cmd;
use super::stage::{Act, Crash, Planned, Point, play};
use super::*;

fn ask(cmd: Cmd) -> Act {
    Act::Ask { asks: vec![(0, cmd)], faults: vec![], crash: None }
}

fn create(dm: bool, warm: bool, start: bool, restart: RestartPolicy) -> Cmd {
    Cmd::Create { memory_mib: 128, dm, warm, start, restart, checked: false }
}

fn created(dm: bool, start: bool) -> Act {
    ask(create(dm, false, start, RestartPolicy::No))
}

fn kept(start: bool) -> Act {
    ask(create(true, false, start, RestartPolicy::Always))
}

fn suspended(dm: bool) -> Vec<Act> {
    vec![created(dm, true), ask(Cmd::Suspend)]
}

/// Plays it with a crash at each point, of each kind.
fn everywhere(before: &[Act], cmd: &Cmd, faults: &[Planned]) {
    let whole = |crash| {
        let asks = vec![(0, cmd.clone())];
        let act = Act::Ask { asks, faults: faults.to_vec(), crash };
        before.iter().cloned().chain([act]).collect::<Vec<_>>()
    };
    let used = play(&whole(None)).unwrap();
    assert!(used.writes > 1 && used.effects > 0, "{used:?}");
    let points = (0..used.effects).map(Point::Effect).chain((0..used.writes).map(Point::Write));
    for (nth, at) in points.enumerate() {
        for kept in [false, true] {
            let once = Crash { at, kept, reboot: false, again: None, resend: false };
            let mut crashes = vec![once];
            if matches!(at, Point::Write(_)) {
                crashes.push(Crash { resend: kept, reboot: !kept, ..once });
                // The recovery is cut short too, somewhere.
                let again = if kept { Point::Effect(nth % 9) } else { Point::Write(nth % 4) };
                crashes.push(Crash { again: Some((again, nth % 2 == 0)), ..once });
            }
            for crash in crashes {
                if let Err(why) = play(&whole(Some(crash))) {
                    panic!("{cmd:?} after {before:?}, {faults:?}, {crash:?}:\n{why}");
                }
            }
        }
    }
}

/// What cannot be written for a while is settled by the same daemon once it can.
#[test]
fn a_store_that_takes_no_writes_for_a_while_leaves_no_operation_without_an_end() {
    let on = || created(true, true);
    let settled: Vec<(Vec<Act>, Cmd)> = vec![
        (vec![], create(true, false, true, RestartPolicy::No)),
        (vec![], create(false, true, true, RestartPolicy::Always)),
        (vec![created(true, false)], Cmd::Start),
        (vec![on(), Act::Ends(0, 1)], Cmd::Start),
        (vec![on()], Cmd::Stop),
        (vec![on()], Cmd::Restart),
        (vec![on()], Cmd::Suspend),
        (vec![on()], Cmd::Delete),
        (vec![on()], MORE),
        (suspended(true), Cmd::Resume),
    ];
    for (before, cmd) in settled {
        let whole = |faults: Vec<Planned>| {
            let act = Act::Ask { asks: vec![(0, cmd.clone())], faults, crash: None };
            before.iter().cloned().chain([act]).collect::<Vec<_>>()
        };
        let writes = play(&whole(vec![])).unwrap().writes;
        for nth in 0..writes {
            for more in [0, 3] {
                let unwritten = Planned::Unwritten(nth, more);
                if let Err(why) = play(&whole(vec![unwritten.clone()])) {
                    panic!("{cmd:?} after {before:?}, {unwritten:?}:\n{why}");
                }
            }
        }
    }
}

macro_rules! crashes_everywhere {
    ($($name:ident: $before:expr, $cmd:expr $(, $fault:expr)*;)*) => {
        $(#[test]
        fn $name() {
            let before: Vec<Act> = $before;
            everywhere(&before, &$cmd, &[$($fault),*]);
        })*
    };
}

fn refused(name: &'static str) -> Planned {
    Planned::Nth(name, 0, Fault::Refuse)
}

const MORE: Cmd = Cmd::Set { more: 64, memory_mib: None, restart: None, checked: None };
const KEEP: Cmd = Cmd::Set {
    more: 0,
    memory_mib: None,
    restart: Some(RestartPolicy::Always),
    checked: Some(true),
};

#[test]
fn a_vm_that_cannot_be_watched_for_a_while_runs_on_and_is_watched_again() {
    let unwatched = vec![refused("process.exited")];
    let acts = [
        created(false, true),
        Act::Ask { asks: vec![(0, MORE)], faults: unwatched, crash: None },
        Act::Wait(5),
        Act::Ends(0, 1),
    ];
    play(&acts).unwrap();
}

#[test]
fn a_spare_tap_that_was_not_or_half_removed_is_made_sure_of_before_it_is_used() {
    for (cmd, fault) in [(Cmd::Restart, Fault::HalfDone), (Cmd::Stop, Fault::Refuse)] {
        let faults = vec![Planned::Nth("net.remove_tap", 0, fault)];
        let asks = vec![(0, cmd)];
        play(&[created(false, true), Act::Ask { asks, faults, crash: None }]).unwrap();
    }
}

crashes_everywhere! {
    a_creation: vec![], create(false, false, false, RestartPolicy::No);
    a_creation_and_start: vec![], create(true, false, true, RestartPolicy::No);
    a_creation_and_start_of_what_is_kept: vec![], create(true, false, true, RestartPolicy::Always);
    a_first_warm_start: vec![], create(false, true, true, RestartPolicy::No);
    a_start: vec![created(true, false)], Cmd::Start;
    a_start_that_fails: vec![created(true, false)], Cmd::Start, refused("guest.await_ready");
    a_start_after_a_crash: vec![created(true, true), Act::Ends(0, 1)], Cmd::Start;
    a_start_of_what_is_kept: vec![kept(false)], Cmd::Start;
    a_start_of_what_is_kept_that_fails: vec![kept(false)], Cmd::Start, refused("guest.await_ready");
    a_start_after_a_crash_loop: vec![kept(true), Act::Ends(0, 6)], Cmd::Start;
    a_stop_of_what_is_kept: vec![kept(true), Act::Ends(0, 1)], Cmd::Stop;
    a_delete_after_a_crash_loop: vec![kept(true), Act::Ends(0, 6)], Cmd::Delete;
    a_policy_set: vec![created(true, true)], KEEP;
    a_stop: vec![created(true, true)], Cmd::Stop;
    a_kill: vec![created(true, true)], Cmd::Kill(15);
    a_restart: vec![created(true, true)], Cmd::Restart;
    a_restart_that_fails: vec![created(true, true)], Cmd::Restart, refused("hypervisor.boot");
    a_suspend: vec![created(true, true)], Cmd::Suspend;
    a_suspend_that_fails: vec![created(true, true)], Cmd::Suspend, refused("disk.keep_saved");
    a_resume: suspended(true), Cmd::Resume;
    a_resume_that_fails: suspended(false), Cmd::Resume, refused("hypervisor.boot");
    a_cold_start: suspended(true), Cmd::StartCold;
    a_kill_of_what_is_suspended: suspended(false), Cmd::Kill(9);
    a_delete: vec![created(true, true)], Cmd::Delete;
    a_delete_of_what_is_off: vec![created(false, false)], Cmd::Delete;
    a_delete_of_what_is_suspended: suspended(true), Cmd::Delete;
    a_growth: vec![created(false, false)], MORE;
    a_growth_of_what_runs: vec![created(true, true)], MORE;
    a_growth_that_fails_once: vec![created(true, true)], MORE, refused("disk.grow");
}
