//! A guest that is suspended, and goes on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Host, Running, new_host, until};

/// In a session of its own, as whatever is to outlive the command that starts it.
const COUNT: &str = "/bin/busybox setsid sh -c 'i=0; while :; do i=$((i+1)); \
                     echo $i > /root/count; sleep 0.1; done' > /dev/null 2>&1 &";

fn exec(host: &Host, line: &str) -> String {
    host.banger(&["vm", "exec", "web", "--", "sh", "-c", line]).ok()
}

fn count(host: &Host) -> u64 {
    exec(host, "cat /root/count 2>/dev/null || true").trim().parse().unwrap_or_default()
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// How far the guest's clock is off, in seconds, at most: asking takes its time.
fn clock_error(host: &Host) -> f64 {
    let before = unix_seconds();
    let said: f64 = exec(host, "date +%s").trim().parse().unwrap();
    let after = unix_seconds();
    // It says whole seconds, rounded down.
    if said < before.floor() { before.floor() - said } else { (said - after).max(0.0) }
}

#[test]
fn what_runs_in_a_guest_goes_on_after_it_was_suspended() {
    let mut host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web", "--memory", "256M"]).ok();
    exec(&host, "echo kept > /kept; echo kept > /root/kept; mkdir /run/m; echo mem > /run/m/kept");
    exec(&host, COUNT);
    until("it counts", Duration::from_secs(30), || count(&host) > 3);
    let first = host.show("web");
    let random = exec(&host, "cat /proc/sys/kernel/random/uuid");
    // Somebody is in it, and loses the connection, and not the patience.
    let mut inside =
        Running::start(&mut host.banger_command(&["vm", "exec", "web", "--", "sleep", "1000"]));
    until("somebody is in it", Duration::from_secs(30), || {
        exec(&host, "ps").contains("sleep 1000")
    });
    for round in 0..2 {
        host.banger(&["vm", "suspend", "web"]).ok();
        let shown = host.show("web");
        assert_eq!((&shown["state"], &shown["pid"]), (&"suspended".into(), &().into()));
        assert!(host.guests().is_empty(), "its process is gone");
        let memory = std::fs::metadata(
            host.dir.join(format!("s/vms/{}/saved/memory", shown["id"].as_str().unwrap())),
        );
        let length = memory.unwrap().len();
        assert!((1 << 20..256 << 20).contains(&length), "{length} bytes of memory");
        if round == 0 {
            until("whoever was in it has left", Duration::from_secs(10), || {
                inside.0.try_wait().unwrap().is_some()
            });
        } else {
            host.kill_daemon();
            host.start_daemon();
            assert_eq!(host.show("web")["state"], "suspended");
        }
        let refused = host.banger(&["vm", "stop", "web"]).expect(1);
        assert!(refused.stderr.contains("its memory would be lost"), "{}", refused.stderr);
        host.banger(&["vm", if round == 0 { "resume" } else { "start" }, "web"]).ok();
        let shown = host.show("web");
        assert_eq!(
            (&shown["state"], &shown["guest_boot_id"]),
            (&"running".into(), &first["guest_boot_id"],)
        );
        let error = clock_error(&host);
        assert!(error <= 1.0, "its clock is off by {error} s");
        let boot = exec(&host, "cat /proc/sys/kernel/random/boot_id");
        assert_eq!(boot.trim(), first["guest_boot_id"]);
        assert_eq!(exec(&host, "cat /kept /root/kept /run/m/kept"), "kept\nkept\nmem\n");
        let counted = count(&host);
        until("it counts on", Duration::from_secs(30), || count(&host) > counted + 3);
        until("who lost the connection is gone", Duration::from_secs(10), || {
            !exec(&host, "ps").contains("sleep 1000")
        });
    }
    assert_ne!(exec(&host, "cat /proc/sys/kernel/random/uuid"), random);
    host.banger(&["vm", "stop", "web"]).ok();
    host.banger(&["vm", "start", "web"]).ok();
    assert_eq!(exec(&host, "cat /kept /root/kept"), "kept\nkept\n");
    host.banger(&["vm", "suspend", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn memory_that_cannot_be_read_leaves_the_vm_suspended_with_a_way_out() {
    let host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web", "--memory", "128M"]).ok();
    exec(&host, "echo kept > /root/kept");
    let first = host.show("web")["guest_boot_id"].clone();
    host.banger(&["vm", "suspend", "web"]).ok();
    let id = host.show("web")["id"].as_str().unwrap().to_owned();
    let memory = host.dir.join(format!("s/vms/{id}/saved/memory"));
    let whole = std::fs::read(&memory).unwrap();
    std::fs::write(&memory, &whole[..whole.len() / 2]).unwrap();
    let refused = host.banger(&["vm", "resume", "web"]).expect(1);
    assert!(refused.stderr.contains("load-memory"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--discard-memory web"), "{}", refused.stderr);
    assert_eq!(host.show("web")["state"], "suspended");
    assert!(host.guests().is_empty());
    // It is a matter of the file alone.
    std::fs::write(&memory, &whole).unwrap();
    host.banger(&["vm", "resume", "web"]).ok();
    assert_eq!(host.show("web")["guest_boot_id"], first);
    host.banger(&["vm", "suspend", "web"]).ok();
    host.banger(&["vm", "start", "--discard-memory", "web"]).ok();
    assert_ne!(host.show("web")["guest_boot_id"], first);
    assert_eq!(exec(&host, "cat /root/kept"), "kept\n", "it was written before it stood still");
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn a_daemon_killed_while_it_suspends_or_resumes_takes_it_back_or_finishes_it() {
    let mut host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web", "--memory", "128M"]).ok();
    let first = host.show("web")["guest_boot_id"].clone();
    for (verb, before, after) in
        [("suspend", "running", "suspended"), ("resume", "suspended", "running")]
    {
        let asked = Running::start(&mut host.banger_command(&["vm", verb, "web"]));
        until("it has begun", Duration::from_secs(30), || host.show("web")["state"] != before);
        host.kill_daemon();
        drop(asked);
        host.start_daemon();
        let state = host.show("web")["state"].clone();
        assert!(state == before || state == after, "{verb}: {state}");
        // Taken back it is asked for again, and nothing was lost; finished it is so already.
        host.banger(&["vm", verb, "web"]).ok();
        assert_eq!(host.show("web")["state"], after);
    }
    assert_eq!(host.show("web")["guest_boot_id"], first);
    exec(&host, "true");
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}
