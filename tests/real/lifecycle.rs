//! From the first run to the last delete.

use std::time::Duration;

use crate::support::{new_host, until};

#[test]
fn run_brings_back_output_and_exit_code_and_leaves_nothing() {
    let host = new_host!();
    let before = host.world();
    let command = "uname -r; cat /etc/os-release; hostname; exit 7";
    let ran =
        host.banger(&["vm", "run", "--rm", "--name", "once", "--", "sh", "-c", command]).expect(7);
    assert!(ran.stdout.contains("cloud-amd64"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Tiny test image"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("once\n"), "{}", ran.stdout);
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn what_was_written_survives_stop_start_and_restart() {
    let host = new_host!();
    let before = host.world();
    assert_eq!(host.banger(&["vm", "run", "-d", "--name", "web"]).ok(), "web\n");
    let boot = |host: &crate::support::Host| host.show("web")["guest_boot_id"].clone();
    let first_boot = boot(&host);
    let write = "echo root > /marker; echo work > /root/marker; echo etc > /etc/marker";
    host.banger(&["vm", "exec", "web", "--", "sh", "-c", write]).ok();
    host.banger(&["vm", "stop", "web"]).ok();
    assert_eq!(host.show("web")["state"], "stopped");
    assert!(host.guests().is_empty());
    host.banger(&["vm", "stop", "web"]).ok(); // what is so already is no failure
    host.banger(&["vm", "start", "web"]).ok();
    let read = ["vm", "exec", "web", "--", "cat", "/marker", "/root/marker", "/etc/marker"];
    assert_eq!(host.banger(&read).ok(), "root\nwork\netc\n");
    assert_ne!(boot(&host), first_boot);
    host.banger(&["vm", "restart", "web"]).ok();
    assert_eq!(host.banger(&read).ok(), "root\nwork\netc\n");
    host.banger(&["vm", "delete", "web"]).ok();
    host.banger(&["vm", "show", "web"]).expect(4);
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn several_names_in_one_command_and_one_that_is_wrong() {
    let host = new_host!();
    let before = host.world();
    for name in ["a", "b"] {
        host.banger(&["vm", "create", "--no-start", "--name", name]).ok();
    }
    let started = host.banger(&["vm", "start", "a", "nobody", "b", "a"]).expect(1);
    assert_eq!(started.stdout, "a\nb\n", "each once, in the order asked for");
    assert!(started.stderr.contains("nobody"), "{}", started.stderr);
    let listed = host.banger(&["ps", "-q"]).ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    host.banger(&["vm", "kill", "a", "b"]).ok();
    assert!(host.guests().is_empty());
    host.banger(&["vm", "delete", "a", "b"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}
