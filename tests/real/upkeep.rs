//! VMs that end though nobody asked, and what their policies make of it.

use std::time::Duration;

use serde_json::Value;

use crate::crash::kill_hard;
use crate::support::{Host, busybox_with, new_host, until};

const BACK: Duration = Duration::from_secs(60);

fn pid(host: &Host) -> u64 {
    host.show("web")["pid"].as_u64().unwrap()
}

fn state(host: &Host) -> Value {
    host.show("web")["state"].clone()
}

fn upkeep(host: &Host, field: &str) -> Value {
    host.show("web")["upkeep"][field].clone()
}

/// Its VMM is killed, and the daemon has seen it.
fn dies(host: &Host) {
    kill_hard(pid(host));
    until("it is seen", BACK, || state(host) != "running");
}

fn is_back(host: &Host) {
    until("it is back", BACK, || state(host) == "running");
    host.banger(&["vm", "exec", "web", "--", "true"]).ok();
}

#[test]
fn a_vm_whose_policy_says_so_comes_back_by_itself_with_its_files() {
    let mut host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web", "--restart", "always"]).ok();
    let write = "echo kept > /root/kept; echo kept > /kept; sync";
    host.banger(&["vm", "exec", "web", "--", "sh", "-c", write]).ok();
    let first = host.show("web");
    dies(&host);
    let list = host.banger(&["vm", "list"]).ok();
    assert!(list.contains("crashed (restart in 1 s)") || list.contains("starting"), "{list}");
    is_back(&host);
    let again = host.show("web");
    assert_ne!(first["guest_boot_id"], again["guest_boot_id"]);
    assert_eq!(again["upkeep"]["restarts"], 1);
    assert_eq!(again["upkeep"]["wanted"], "running");
    let kept = host.banger(&["vm", "exec", "web", "--", "cat", "/root/kept", "/kept"]).ok();
    assert_eq!(kept, "kept\nkept\n");

    // The daemon dies during the back-off, and the next one goes on with it.
    dies(&host);
    host.kill_daemon();
    host.start_daemon();
    is_back(&host);
    assert_eq!(upkeep(&host, "restarts"), 2);

    // The VMM dies while no daemon is there.
    host.kill_daemon();
    for guest in host.guests() {
        kill_hard(guest.into());
    }
    host.start_daemon();
    is_back(&host);
    assert_eq!(upkeep(&host, "restarts"), 3);

    // A stop sticks, during the back-off too.
    dies(&host);
    host.banger(&["vm", "stop", "web"]).ok();
    let shown = host.show("web");
    assert_eq!(
        (&shown["state"], &shown["upkeep"]["wanted"]),
        (&"stopped".into(), &"stopped".into())
    );
    assert_eq!(shown["upkeep"]["next_start_unix_ms"], Value::Null);
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(state(&host), "stopped");
    assert!(host.guests().is_empty());

    host.banger(&["vm", "set", "web", "--restart", "no"]).ok();
    host.banger(&["vm", "start", "web"]).ok();
    dies(&host);
    until("cleaned up", BACK, || host.guests().is_empty() && host.show("web")["busy"].is_null());
    assert_eq!(
        (state(&host), upkeep(&host, "next_start_unix_ms")),
        ("crashed".into(), Value::Null)
    );
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

/// Ends, and with it the machine.
const INIT: &str = "#!/bin/busybox sh\n/bin/busybox sleep 1\n";

#[test]
fn a_guest_that_dies_again_and_again_ends_in_an_error_that_a_start_leaves() {
    let host = new_host!();
    let before = host.world();
    let tar = host.dir.join("dying.tar");
    busybox_with(&[("sbin/init", INIT)], &tar);
    host.banger(&["image", "import", "dying", &tar.display().to_string()]).ok();
    let run = ["vm", "run", "-d", "--name", "web", "--image", "dying", "--restart", "always"];
    host.banger(&run).ok();
    until("it is given up", Duration::from_secs(150), || state(&host) == "error");
    let shown = host.show("web");
    assert_eq!(shown["last_failure"]["code"], "crash-loop", "{shown:#}");
    assert!(shown["last_failure"]["hints"].to_string().contains("banger vm start web"));
    let restarts = shown["upkeep"]["restarts"].as_u64().unwrap();
    assert_eq!(restarts, 4, "{shown:#}");
    assert!(host.banger(&["vm", "list"]).ok().contains("error (crash-loop)"));
    until("its things are gone", BACK, || {
        host.guests().is_empty() && host.show("web")["busy"].is_null()
    });

    host.banger(&["vm", "start", "web"]).ok();
    until("it counts anew", BACK, || upkeep(&host, "restarts") == 1);
    host.banger(&["vm", "delete", "web"]).ok();
    host.banger(&["image", "delete", "dying"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

fn health(host: &Host) -> Value {
    let shown = host.banger(&["vm", "health", "web", "--json"]);
    serde_json::from_str(&shown.stdout).unwrap_or_default()
}

#[test]
fn a_guest_whose_health_check_fails_says_so_and_is_restarted() {
    let host = new_host!();
    let before = host.world();
    let check = ["--health-cmd", "cat /run/well && test ! -e /run/ill", "--health-interval", "1s"];
    let run = ["vm", "run", "-d", "--name", "web", "-e", "A=b", "--health-retries", "2"];
    host.banger(&[run.as_slice(), &check].concat()).ok();
    let exec = |line: &str| host.banger(&["vm", "exec", "web", "--", "sh", "-c", line]).ok();
    exec("echo well > /run/well");
    until("it is healthy", BACK, || health(&host)["status"] == "healthy");
    let said = host.banger(&["vm", "health", "web"]).ok();
    assert!(said.starts_with("healthy\n") && said.contains("exit status 0"), "{said}");
    assert!(said.contains("  well"), "{said}");

    // A check that hangs keeps nobody waiting, and is ended.
    let hang = ["vm", "set", "web", "--health-cmd", "sleep 1000", "--health-timeout", "1s"];
    host.banger(&hang).ok();
    until("it has failed", BACK, || health(&host)["status"] == "unhealthy");
    assert_eq!(health(&host)["last"]["how"], "no end within 1s");
    host.banger(&["vm", "health", "web"]).expect(1);
    assert!(host.banger(&["vm", "list"]).ok().contains("running (unhealthy)"));
    let kind = upkeep(&host, "conditions")[0]["kind"].clone();
    assert_eq!(kind, "unhealthy");
    let first = pid(&host);

    // Its policy restarts it; then all is well.
    let check = "test $A = b && test ! -e /root/ill";
    exec("touch /root/ill");
    host.banger(&["vm", "set", "web", "--restart", "on-failure", "--health-cmd", check]).ok();
    until("it is restarted", Duration::from_secs(90), || {
        let shown = host.show("web");
        shown["state"] == "running" && shown["pid"].as_u64().is_some_and(|now| now != first)
    });
    assert_eq!(upkeep(&host, "restarts"), 1);
    exec("rm /root/ill");
    until("it is healthy", BACK, || health(&host)["status"] == "healthy");
    let started = std::time::Instant::now();
    host.banger(&["vm", "stop", "web"]).ok();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(health(&host)["status"], "off");
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}
