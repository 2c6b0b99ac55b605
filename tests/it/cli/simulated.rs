//! The program `banger` against the real daemon on a simulated host.

use std::time::{Duration, Instant};

use crate::support::banger::{Finish, Said, Surroundings};
use crate::support::simulated::Simulated;

/// A daemon with an image and a kernel.
pub(super) fn place(options: &str) -> (Simulated, Surroundings) {
    let (daemon, here) = (Simulated::start(options), Surroundings::new());
    std::fs::write(here.path().join("k.deb"), "").unwrap();
    for line in ["image build debian -q", "kernel import k k.deb -q"] {
        let said = here.banger(&daemon.socket(), line).current_dir(here.path()).said();
        assert_eq!(said.code, 0, "{line}: {}", said.err);
    }
    (daemon, here)
}

pub(super) fn json(said: &Said) -> serde_json::Value {
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{} {}", said.out, said.err))
}

#[test]
fn stats_of_what_runs_and_of_what_is_named() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm stats").out.lines().count(), 1, "a header and nobody");
    assert_eq!(run("vm create --name web --memory 512M -q").code, 0);
    assert_eq!(run("vm create --no-start --name idle -q").code, 0);

    let said = run("vm stats");
    let lines: Vec<Vec<&str>> =
        said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{}", said.out);
    assert_eq!(lines[0], ["NAME", "STATE", "CPU", "MEM", "OF", "ROOT", "WORK", "NET", "BLOCK"]);
    assert_eq!(lines[1][..2], ["web", "running"]);
    assert!(lines[1][2].ends_with('%'), "{}", said.out);
    assert_eq!(lines[1][3..], ["64M", "512M", "3M", "1M", "4.1K/2K", "32M/1M"]);

    let list = json(&run("vm stats --json idle web web"));
    assert_eq!(list.as_array().unwrap().len(), 2, "one VM named twice is one");
    assert_eq!((&list[0]["name"], &list[0]["cpu_us"]), (&"idle".into(), &().into()));
    let percent = list[1]["cpu_percent"].as_f64().unwrap();
    assert!((5.0..15.0).contains(&percent), "a tenth of a CPU: {percent}");
    assert_eq!(list[1]["devices"]["net_in_bytes"], 4200);
    assert_eq!(run("vm stats nope").code, 4);
}

#[test]
fn a_vms_life() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    let said = run("vm create --name web --memory 512M --vcpu 2");
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
    assert!(said.err.contains("\nawait-ready  "), "{}", said.err);
    assert!(said.err.contains("\nspec: 2 vcpu | 512 MiB | 8G disk\n"), "{}", said.err);

    let list = json(&run("ps --json"));
    assert_eq!(list[0]["name"], "web");
    assert_eq!(list[0]["state"], "running");
    let id = list[0]["id"].as_str().unwrap();
    assert_eq!(run("ps -q").out, format!("{}\n", &id[..12]));
    assert_eq!(json(&run(&format!("vm show {}", &id[..6])))["id"], id, "a prefix of the id");

    assert_eq!(run("vm create --name web").code, 1, "the name is taken");
    assert_eq!(run("vm start nope").code, 4);
    assert_eq!(run("exec nope -- true").code, 125);
    assert!(run("vm logs web").out.contains("sim"));
    assert_eq!(run("image rm debian-bookworm").code, 1, "in use");

    assert_eq!(run(&format!("vm stop web {id}")).out, "web\n", "one VM under two names");
    let said = run("vm stop web");
    assert_eq!((said.code, said.err.as_str()), (0, "web: already stopped\n"));
    assert_eq!(run("exec web -- true").code, 125);
    assert_eq!(run("ps -q").out, "");
    for verb in ["start", "restart", "kill", "start", "delete"] {
        let said = run(&format!("vm {verb} web"));
        assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{verb}: {}", said.err);
    }
    assert_eq!(json(&run("vm list --json")), serde_json::json!([]));
    assert_eq!(run("vm delete web").code, 4);
    assert_eq!(run("vm create --no-start --name idle -q").code, 0);
    let said = run("vm stop idle");
    assert_eq!((said.code, said.err.as_str()), (0, "idle: never started\n"));
    assert_eq!(run("vm delete idle").code, 0);
    let said = run("image rm debian-bookworm");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with("remove-name  "), "{}", said.err);
    assert_eq!(run("kernel rm k").code, 0);

    let ops = json(&run("ops list --json"));
    let kinds: Vec<_> = ops.as_array().unwrap().iter().map(|op| &op["kind"]).collect();
    assert!(kinds.contains(&&"vm-restart".into()), "{kinds:?}");
    let status = json(&run("daemon status --json"));
    assert_eq!((&status["simulated"], &status["vms"]), (&true.into(), &0.into()));
}

#[test]
fn a_suspended_vm() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --name web -q").code, 0);
    let boot = json(&run("vm show web"))["guest_boot_id"].clone();
    let said = run("vm resume web");
    assert_eq!((said.code, said.err.as_str()), (0, "web: already running\n"));
    for again in ["resume", "start"] {
        let said = run("vm suspend web");
        assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
        assert!(said.err.contains("\nkeep-memory  "), "{}", said.err);
        let shown = json(&run("vm show web"));
        assert_eq!((&shown["state"], &shown["pid"]), (&"suspended".into(), &().into()));
        assert!(shown["vmm"].as_str().unwrap().starts_with("sim 1"), "{shown}");
        assert_eq!(run("vm suspend web").err, "web: already suspended\n");
        assert!(run("vm list").out.contains("suspended"));
        assert_eq!(run("ps -q").out, "");
        let said = run("exec web -- true");
        assert!(said.code == 125 && said.err.contains("suspended, not running"), "{}", said.err);
        for verb in ["stop", "restart"] {
            let said = run(&format!("vm {verb} web"));
            assert!(said.err.contains("its memory would be lost"), "{}", said.err);
            assert!(said.code == 1 && said.err.contains("vm kill web"), "{}", said.err);
        }
        let said = run(&format!("vm {again} web"));
        assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
        assert!(said.err.contains("\nload-memory  "), "{}", said.err);
        let shown = json(&run("vm show web"));
        assert_eq!((&shown["state"], &shown["guest_boot_id"]), (&"running".into(), &boot));
    }
    let ops = json(&run("ops list --json"));
    let count = |kind: &str| ops.as_array().unwrap().iter().filter(|op| op["kind"] == kind).count();
    assert_eq!((count("vm-suspend"), count("vm-resume")), (2, 2), "{ops}");
    let events = run("events --json").out;
    assert!(events.contains(r#""state":"suspending""#), "{events}");

    // What throws the memory away: booted anew, killed, deleted.
    run("vm suspend web");
    let said = run("vm start --discard-memory web");
    assert_eq!(said.code, 0, "{}", said.err);
    assert_ne!(json(&run("vm show web"))["guest_boot_id"], boot);
    run("vm suspend web");
    assert_eq!(run("vm kill web").code, 0);
    assert_eq!(json(&run("vm show web"))["state"], "stopped");
    let said = run("vm resume web");
    assert!(said.code == 1 && said.err.contains("stopped, not suspended"), "{}", said.err);
    let said = run("vm suspend web");
    assert!(said.code == 1 && said.err.contains("stopped, not running"), "{}", said.err);
    run("vm start web");
    run("vm suspend web");
    assert_eq!(run("vm delete web").code, 0);
    assert_eq!(json(&run("vm list --json")), serde_json::json!([]));
}

#[test]
fn a_suspend_that_fails_changes_nothing_and_a_resume_that_fails_keeps_the_memory() {
    let (daemon, here) =
        place("--sim-fault disk.keep_saved:0=no-space --sim-fault process.ensure_spawned:1=refuse");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --name web -q").code, 0);
    let boot = json(&run("vm show web"))["guest_boot_id"].clone();
    assert_eq!(run("vm suspend web").code, 1);
    let shown = json(&run("vm show web"));
    assert_eq!((&shown["state"], &shown["guest_boot_id"]), (&"running".into(), &boot));
    assert!(shown["pid"].is_u64() && shown["tap"].is_string(), "{shown}");
    assert_eq!(run("vm suspend web").code, 0);
    assert_eq!(run("vm resume web").code, 1);
    assert_eq!(json(&run("vm show web"))["state"], "suspended");
    let said = run("vm resume web");
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(json(&run("vm show web"))["guest_boot_id"], boot);
}

#[test]
fn a_stop_by_force_says_why() {
    let (daemon, here) =
        place("--sim-fault guest.shutdown=refuse --sim-fault hypervisor.power_button=refuse");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --name web -q").code, 0);
    let said = run("vm stop web");
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
    let note = said.err.lines().find(|line| line.starts_with("ended by force: "));
    assert!(note.is_some_and(|note| note.contains("guest.shutdown")), "{}", said.err);
}

#[test]
fn a_failed_operation_leaves_its_story_in_both_logs() {
    let (daemon, here) = place("--sim-fault guest.await_ready=refuse");
    let said = here.banger(&daemon.socket(), "vm create --name web").said();
    assert_eq!(said.code, 1, "{}", said.err);
    let error = said.err.lines().find(|line| line.starts_with("banger: ")).unwrap();
    let op = &error[error.find("(op-").unwrap() + 1..].trim_end_matches(')');
    assert_eq!(op.len(), 35, "a whole id, to be looked for: {error}");
    assert!(daemon.log().contains(*op), "not in the daemon's log");
    let ours = here.log();
    let line = ours.iter().find(|line| line["op_id"] == **op).expect("not in the CLI's log");
    assert_eq!((&line["command"], &line["outcome"]), (&"vm create".into(), &"failed".into()));
    let said = here.banger(&daemon.socket(), &format!("ops show {op}")).said();
    assert!(said.out.contains("outcome    rolled-back"), "{}", said.out);
    assert!(said.out.contains("await-ready"), "{}", said.out);
}

#[test]
fn many_at_once() {
    let (daemon, here) = place("--sim-boot-ms 100");
    let names: Vec<String> = (0..10).map(|n| format!("vm-{n}")).collect();
    for name in &names {
        let line = format!("vm create --no-start -q --memory 128M --name {name}");
        assert_eq!(here.banger(&daemon.socket(), &line).said().code, 0);
    }
    for verb in ["start", "stop", "rm"] {
        let line = format!("vm {verb} {}", names.join(" "));
        let said = here.banger(&daemon.socket(), &line).said();
        assert_eq!(said.code, 0, "{verb}: {}", said.err);
        let printed: Vec<_> = said.out.lines().collect();
        assert_eq!(printed, names, "{verb}: in the order given");
    }
}

/// Runs `line` in the background until the daemon has begun the operation, then `then`.
pub(super) fn meanwhile(
    daemon: &mut Simulated,
    here: &Surroundings,
    line: &str,
    then: impl FnOnce(&mut Simulated),
) -> Said {
    let script = format!(
        "set -m; mkfifo go; banger {line} & pid=$!; read -r what < go; \
         [ $what = int ] && kill -INT $pid; wait $pid"
    );
    let mut command = here.bash(&daemon.socket(), &script);
    command.current_dir(here.path());
    std::thread::scope(|scope| {
        let running = scope.spawn(move || command.said());
        let late = Instant::now() + Duration::from_secs(20);
        while here
            .banger(&daemon.socket(), "events")
            .said()
            .out
            .matches("await-ready began")
            .count()
            == 0
        {
            assert!(Instant::now() < late && !running.is_finished(), "it never booted");
        }
        then(daemon);
        running.join().unwrap()
    })
}

#[test]
fn ctrl_c_during_the_boot_leaves_nothing() {
    for line in ["run --name web --rm -- true", "run --name web", "vm create --name web"] {
        let (mut daemon, here) = place("--sim-boot-ms 60000");
        let said = meanwhile(&mut daemon, &here, line, |_| {
            std::fs::write(here.path().join("go"), "int\n").unwrap();
        });
        assert_eq!(said.code, 130, "{line}: {}", said.err);
        let left = here.banger(&daemon.socket(), "ps -a --json").said();
        for vm in json(&left).as_array().unwrap() {
            assert!(line.contains("create") && vm["state"] != "running", "{line}: {vm}");
        }
    }
}

#[test]
fn a_daemon_that_dies_and_returns_still_has_the_answer() {
    let (mut daemon, here) = place("--sim-boot-ms 60000");
    let said = meanwhile(&mut daemon, &here, "vm create --name web", |daemon| {
        daemon.kill();
        daemon.run();
        std::fs::write(here.path().join("go"), "wait\n").unwrap();
    });
    assert!(said.err.contains("lost the daemon; waiting for it to come back"), "{}", said.err);
    assert_eq!(said.code, 1, "what was half built was taken back: {}", said.err);
    assert!(said.err.contains("banger: "), "{}", said.err);
}
