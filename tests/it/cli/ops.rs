//! `banger ops` against the real daemon: what runs is watched and taken back, what ended is told.

use std::time::{Duration, Instant};

use super::simulated::{json, meanwhile, place};
use crate::support::banger::{Finish, Surroundings};
use crate::support::simulated::Simulated;

const ID: &str = "op-0198c2aa000000000000000000000001";

fn open_op(daemon: &Simulated, here: &Surroundings) -> String {
    let open = json(&here.banger(&daemon.socket(), "ops list --open --json").said());
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    open[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_boot_is_watched_and_cancelled() {
    let (mut daemon, here) = place("--sim-boot-ms 60000");
    let mut watched = None;
    let said = meanwhile(&mut daemon, &here, "vm create --name web", |daemon| {
        let run = |line: &str| here.banger(&daemon.socket(), line).said();
        let op = open_op(daemon, &here);
        std::thread::scope(|scope| {
            let socket = daemon.socket();
            let watching = format!("ops watch {}", &op[..20]);
            let watching = scope.spawn({
                let here = &here;
                move || here.banger(&socket, &watching).said()
            });
            let said = run(&format!("ops cancel {op}"));
            assert_eq!((said.code, said.out), (0, format!("{op}\n")), "{}", said.err);
            let sentence = "vm-create web was cancelled at await-ready and is undone\n";
            assert!(said.err.ends_with(sentence), "{}", said.err);
            watched = Some(watching.join().unwrap());
        });
        let again = run(&format!("ops cancel {op}"));
        assert_eq!(again.code, 1);
        assert!(again.err.contains("has ended"), "{}", again.err);
        let shown = run(&format!("ops show {op}"));
        assert!(shown.out.contains("STEP"), "{}", shown.out);
        let rung = |step: &str| {
            let line = shown.out.lines().find(|line| line.starts_with(step));
            let line = line.unwrap_or_else(|| panic!("{}", shown.out));
            line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(rung("await-ready"), ["await-ready", "failed", "undone"]);
        assert_eq!(rung("lease-tap")[1..], ["done", "undone"]);
        std::fs::write(here.path().join("go"), "wait\n").unwrap();
    });
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("cancelled"), "{}", said.err);
    // Who watched saw it from its beginning, and its end.
    let watched = watched.unwrap();
    assert_eq!(watched.code, 1, "{}", watched.err);
    assert!(watched.err.contains("await-ready  failed: cancelled"), "{}", watched.err);
    assert!(watched.err.contains("ensure-disks  "), "{}", watched.err);
}

#[test]
fn what_has_ended_is_told_to_who_watches_late() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run(&format!("vm create --name web --op-id {ID}")).code, 0);
    let said = run(&format!("ops watch {ID}"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("outcome    done\n"), "{}", said.out);
    assert!(said.err.contains("await-ready  "), "{}", said.err);
    let said = run(&format!("ops watch --json {ID}"));
    let last: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["kind"]["event"], &last["kind"]["outcome"]),
        (&"op-ended".into(), &"done".into())
    );
    assert_eq!(run("ops list --open --json").out.trim(), "[]");
    assert_eq!(run("ops list --all -q").out.lines().count(), 3);
    assert_eq!(run("ops watch op-ffff").code, 4);
}

#[test]
fn a_command_that_was_killed_is_found_again_by_its_operations_id() {
    let (mut daemon, here) = place("--sim-boot-ms 2000");
    let line = format!("vm create --name web --op-id {ID}");
    // Killed in the middle, it does not end the operation.
    let script = format!(
        "banger {line} & pid=$!; until banger events --op {ID} 2>&1 | grep -q 'await-ready began'; \
         do :; done; kill -9 $pid; wait $pid"
    );
    assert_eq!(here.bash(&daemon.socket(), &script).said().code, 137);
    assert_eq!(open_op(&daemon, &here), ID);
    let said = here.banger(&daemon.socket(), &line).said();
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
    assert_eq!(said.err.matches("ensure-disks  ").count(), 1, "from the beginning: {}", said.err);
    // And again after its end, and after the daemon's; it ran once.
    for _ in 0..2 {
        let said = here.banger(&daemon.socket(), &line).said();
        assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
        daemon.kill();
        daemon.run();
    }
    let began = here.banger(&daemon.socket(), "events").said().out;
    assert_eq!(began.matches("vm-create web began").count(), 1, "{began}");
    let other = here.banger(&daemon.socket(), &format!("vm create --name db --op-id {ID}")).said();
    assert_eq!(other.code, 1);
    assert!(other.err.contains("is known with other contents"), "{}", other.err);
}

#[test]
fn what_tears_down_is_not_cancelled() {
    let (daemon, here) = place("--sim-fault disk.remove_vm:0=delay-ms:5000");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --name web --no-start").code, 0);
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| run("vm delete web"));
        let late = Instant::now() + Duration::from_secs(20);
        while run("ops list --open -q").out.is_empty() {
            assert!(Instant::now() < late && !deleting.is_finished(), "it never began");
        }
        let said = run(&format!("ops cancel {}", open_op(&daemon, &here)));
        assert_eq!(said.code, 1);
        let sentence = "vm-delete web only goes forward: it cannot be cancelled";
        assert!(said.err.contains(sentence), "{}", said.err);
        assert_eq!(deleting.join().unwrap().code, 0);
    });
}
