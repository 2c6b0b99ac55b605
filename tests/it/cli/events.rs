//! The tail of events, as a script reads it: from the real daemon, which dies in between.

use std::time::{Duration, Instant};

use super::simulated::{json, place};
use crate::support::banger::{Finish, Said, Surroundings};
use crate::support::simulated::Simulated;

/// The objects of `--json`, a line each.
fn lines(out: &str) -> Vec<serde_json::Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(events: &[serde_json::Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

/// Ends the follower when a test fails while it runs.
struct End(std::path::PathBuf);

impl Drop for End {
    fn drop(&mut self) {
        drop(std::fs::write(&self.0, ""));
    }
}

/// Follows the events while `then` runs, and until the line that ends with it has come.
fn following(
    daemon: &mut Simulated,
    here: &Surroundings,
    line: &str,
    last: &str,
    then: impl FnOnce(&mut Simulated),
) -> Said {
    let script = format!(
        "banger {line} > out & pid=$!; \
         until grep -qs '{last}' out || [ -e end ]; do read -rt 0.05 <> <(:); done; kill $pid; cat out"
    );
    let mut command = here.bash(&daemon.socket(), &script);
    command.current_dir(here.path());
    std::thread::scope(|scope| {
        let running = scope.spawn(move || command.said());
        let late = Instant::now() + Duration::from_secs(20);
        while std::fs::metadata(here.path().join("out")).map_or(0, |file| file.len()) == 0 {
            assert!(Instant::now() < late, "nothing was told");
        }
        let end = End(here.path().join("end"));
        then(daemon);
        std::mem::forget(end);
        running.join().unwrap()
    })
}

#[test]
fn a_follower_sees_each_event_once_whatever_happens_to_the_daemon() {
    let (mut daemon, here) = place("");
    let said = following(
        &mut daemon,
        &here,
        "events --follow --json",
        r#""op":"vm-delete".*web"#,
        |daemon| {
            let run = |daemon: &Simulated, line: &str| {
                assert_eq!(here.banger(&daemon.socket(), line).said().code, 0, "{line}");
            };
            run(daemon, "vm create -q --name web");
            daemon.kill();
            daemon.run();
            run(daemon, "vm delete -q web");
        },
    );
    let events = lines(&said.out);
    let told = numbers(&events);
    assert_eq!(told, (1..=told.len() as u64).collect::<Vec<_>>(), "{}", said.out);
    assert_eq!(said.err, "lost the daemon; waiting for it to come back\n");
    // Who comes later reads the same.
    let again = here.banger(&daemon.socket(), "events --json").said();
    assert_eq!(lines(&again.out)[..events.len()], events);
}

#[test]
fn events_are_of_a_vm_an_operation_or_a_time() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    for line in ["vm create --no-start --name web", "vm create --name db", "vm delete web"] {
        assert_eq!(run(line).code, 0, "{line}");
    }
    let all = lines(&run("events --json").out);
    let web = lines(&run("events --json --vm web").out);
    let vm = web[0]["vm_id"].clone();
    assert!(web.len() > 4 && vm.is_string(), "a VM that is gone is still known: {web:?}");
    let of_web: Vec<_> = all.iter().filter(|event| event["vm_id"] == vm).cloned().collect();
    assert_eq!(web, of_web);
    let op = json(&run("ops list --json -n 1"))[0]["id"].as_str().unwrap().to_owned();
    let of_op = lines(&run(&format!("events --json --op {op}")).out);
    assert_eq!(of_op[0]["kind"]["op"], "vm-delete");
    assert_eq!(of_op.last().unwrap()["kind"]["event"], "op-ended");
    assert!(of_op.iter().all(|event| event["op_id"] == *op));
    let since = lines(&run(&format!("events --json --since {}", of_op[0]["seq"])).out);
    assert_eq!(since, all[all.len() - since.len()..]);
    assert_eq!(lines(&run("events --json --since 1h").out), all);
    assert_eq!(run("events --since 2099-01-01T00:00:00Z").out, "");
    assert_eq!(run("events --vm nope").code, 4);
    assert_eq!(run("events --since tomorrow").code, 2);
}

#[test]
fn events_that_are_kept_no_more_are_said_to_be() {
    let (mut daemon, here) = place("");
    daemon.kill();
    let config = daemon.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[limits]\nevents_kept = 5\n")).unwrap();
    daemon.run();
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("image build debian --name another").code, 0);
    let kept = lines(&run("events --json").out);
    assert_eq!(kept.len(), 5);
    let said = run("events --json --since 1");
    let told = lines(&said.out);
    assert_eq!(said.code, 0);
    assert_eq!(told[0]["kind"]["event"], "forgotten");
    assert_eq!(told[0]["kind"]["first"], kept[0]["seq"]);
    assert_eq!(told[1..], kept);
    assert!(run("events --since 1").out.contains("earlier events are kept no more"));
}
