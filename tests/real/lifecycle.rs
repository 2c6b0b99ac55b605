//! From the first run to the last delete.

use std::time::Duration;

use crate::support::{host, until};

#[test]
fn run_brings_back_the_guests_output_and_exit_code() {
    let host = host!();
    let before = host.world();
    let ran = host.banger(&[
        "vm",
        "run",
        "--rm",
        "--",
        "sh",
        "-c",
        "uname -r; cat /etc/os-release; exit 7",
    ]);
    let ran = ran.expect(7);
    assert!(ran.stdout.contains("cloud-amd64"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Tiny test image"), "{}", ran.stdout);
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn what_was_written_survives_stop_and_start() {
    let host = host!();
    host.banger(&["vm", "run", "-d", "--name", "web"]).ok();
    let write = "echo root > /marker; echo work > /root/marker; echo etc > /etc/marker";
    host.banger(&["vm", "exec", "web", "--", "sh", "-c", write]).ok();
    host.banger(&["vm", "stop", "web"]).ok();
    assert_eq!(host.show("web")["state"], "stopped");
    assert!(host.guests().is_empty());
    host.banger(&["vm", "start", "web"]).ok();
    let read =
        host.banger(&["vm", "exec", "web", "--", "cat", "/marker", "/root/marker", "/etc/marker"]);
    assert_eq!(read.ok(), "root\nwork\netc\n");
}
