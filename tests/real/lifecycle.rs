//! From the first run to the last delete.

use std::time::Duration;

use crate::support::{busybox_with, new_host, until};

#[test]
fn run_brings_back_output_and_exit_code_and_leaves_nothing() {
    let host = new_host!();
    let before = host.world();
    let kernel = host.banger(&["kernel", "show", "debian", "--json"]).ok();
    let kernel: serde_json::Value = serde_json::from_str(&kernel).unwrap();
    let support = |option: &str| {
        let features = kernel["features"].as_array().unwrap();
        let found = features.iter().find(|feature| feature["option"] == option);
        found.unwrap_or_else(|| panic!("{kernel:#}"))["support"].clone()
    };
    for (option, known) in [
        ("CONFIG_OVERLAY_FS", "module"),
        ("CONFIG_EXT4_FS", "yes"),
        ("CONFIG_PVH", "yes"),
        ("CONFIG_VIRTIO_MEM", "module-left-out"),
        ("CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES", "no"),
    ] {
        assert_eq!(support(option), known, "{option}");
    }
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
    let taken = host.banger(&["vm", "stats", "--json"]).ok();
    let taken: serde_json::Value = serde_json::from_str(&taken).unwrap();
    assert!(taken[0]["resident_bytes"].as_u64().unwrap() > 16 << 20, "{taken:#}");
    assert!(taken[0]["cpu_us"].as_u64().unwrap() > 100_000, "{taken:#}");
    assert!(taken[0]["work_disk_bytes"].as_u64().unwrap() > 0, "{taken:#}");
    assert!(taken[0]["devices"].is_null(), "QEMU does not count: {taken:#}");
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

/// An init that ends the machine when it is asked to, unless it has been told to be deaf.
const INIT: &str = "#!/bin/sh
trap '[ -e /root/deaf ] || { echo asked > /root/asked; sync; /bin/busybox reboot -f; }' TERM
while :; do sleep 1000 & wait $!; done
";

#[test]
fn an_image_with_an_init_of_its_own_runs_it_and_is_stopped_by_it() {
    let host = new_host!();
    let before = host.world();
    let tar = host.dir.join("own.tar");
    busybox_with(&[("sbin/init", INIT)], &tar);
    host.banger(&["image", "import", "own", &tar.display().to_string()]).ok();
    host.banger(&["vm", "run", "-d", "--name", "web", "--image", "own"]).ok();
    let exec = |line: &str| host.banger(&["vm", "exec", "web", "--", "sh", "-c", line]).ok();
    assert_eq!(exec("cat /proc/1/comm"), "init\n");
    // The work disk has the size that was asked for (1 GiB), but for what ext4 needs itself.
    let blocks: u64 = exec("df -k /root | tail -n 1 | awk '{print $2}'").trim().parse().unwrap();
    assert!((900 << 10..=1 << 20).contains(&blocks), "{blocks} KiB");

    let stopped = host.banger(&["vm", "stop", "web"]).expect(0);
    assert!(!stopped.stderr.contains("ended "), "{}", stopped.stderr);
    host.banger(&["vm", "start", "web"]).ok();
    assert_eq!(exec("cat /root/asked"), "asked\n");
    // One that does not listen is ended all the same, by the agent or from outside, and it is said.
    exec("touch /root/deaf");
    let stopped = host.banger(&["vm", "stop", "--grace", "1s", "web"]).expect(0);
    let note = stopped.stderr.lines().find(|line| line.starts_with("ended "));
    assert!(note.is_some_and(|note| note.contains("did not end in time")), "{}", stopped.stderr);
    assert_eq!(host.show("web")["state"], "stopped");
    host.banger(&["vm", "delete", "web"]).ok();
    host.banger(&["image", "delete", "own"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}
