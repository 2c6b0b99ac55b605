//! The lane: commands reach the guest without its network, one at a time, and others go around.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::support::{Host, Running, new_host, until};

const LIMIT: Duration = Duration::from_secs(30);

/// With the bridge down SSH reaches nobody.
fn network(host: &Host, state: &str) {
    host.inside("ip", &["link", "set", "br-test", state]).ok();
}

/// The directory that whoever has the lane has locked.
fn lane_dir(host: &Host) -> PathBuf {
    let mut dirs = fs::read_dir(host.dir.join("r")).unwrap().map(|entry| entry.unwrap().path());
    dirs.find(|dir| dir.join("lane.sock").exists()).expect("a guest with a lane")
}

fn is_taken(host: &Host) -> bool {
    let dir = fs::File::open(lane_dir(host)).unwrap();
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// 0: a `sleep` runs in the guest, 1: none does.
fn sleeps(host: &Host) -> Option<i32> {
    let look = "for comm in /proc/[0-9]*/comm; do read name < $comm; \
                [ \"$name\" = sleep ] && exit 0; done 2> /dev/null; exit 1";
    host.banger(&["vm", "exec", "g", "--", "sh", "-c", look]).code
}

#[test]
fn commands_need_no_network_and_leave_nothing_behind_for_the_next() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    network(&host, "down");
    for n in 0..20 {
        let n = n.to_string();
        assert_eq!(host.banger(&["vm", "exec", "g", "--", "echo", &n]).ok(), format!("{n}\n"));
    }
    host.banger(&["vm", "exec", "g", "--", "sh", "-c", "kill -USR1 $$"]).expect(128 + 10);
    host.banger(&["vm", "exec", "g", "--", "no-such-program"]).expect(127);
    // Input beyond what is granted at once, through a program that reads late and ends early.
    let mut child = host
        .banger_command(&["vm", "exec", "g", "--", "sh", "-c", "head -c 3000000 | wc -c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The program leaves the rest unread; that is no error of ours.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&vec![b'x'; 5_000_000])));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3000000");
}

#[test]
fn whoever_finds_the_lane_taken_goes_by_ssh_at_once() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let mut command = host.banger_command(&["vm", "exec", "g", "--", "sleep", "1000"]);
    let mut holder = Running::start(command.stdin(Stdio::null()));
    until("the lane is taken", LIMIT, || is_taken(&host));
    until("its command runs", LIMIT, || sleeps(&host) == Some(0));
    // Killed without a farewell: its command is hung up, and the lane is free for the next.
    holder.kill();
    assert!(!is_taken(&host));
    network(&host, "down");
    until("its command is gone", LIMIT, || sleeps(&host) == Some(1));
}

#[test]
fn the_end_of_the_vm_is_told_as_such() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let mut command = host.banger_command(&["vm", "exec", "g", "--", "sleep", "1000"]);
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("the lane is taken", LIMIT, || is_taken(&host));
    host.banger(&["vm", "kill", "g"]).ok();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("the VM ended"), "{said}");
}
