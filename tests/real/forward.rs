//! Ports carried over a connection to a guest: `banger vm ssh -L`, `-R`, `-D`, `-A`.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Host, Running, new_host, until};

const LIMIT: Duration = Duration::from_secs(60);
/// Says back what it is told, to one after the other.
const ECHO: [&str; 7] = ["busybox", "nc", "-ll", "-p", "7000", "-e", "cat"];

/// What comes back of `said`, which is for `printf`, on a port of this host.
fn told(host: &Host, said: &str, port: &str) -> String {
    let line = format!("printf '{said}' | busybox nc -w 5 127.0.0.1 {port}");
    host.inside("sh", &["-c", &line]).stdout
}

#[test]
fn ports_lead_into_the_guest_and_out_of_it_while_the_connection_lasts() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let guest = [&["vm", "exec", "--detach", "g", "--"][..], &ECHO].concat();
    host.banger(&guest).ok();
    let mut here = host.command(ECHO[0], &ECHO[1..]);
    let _here = Running::start(here.stdin(Stdio::null()));
    let args = [
        "vm",
        "ssh",
        "-N",
        "-L",
        "7001:localhost:7000",
        "-D",
        "7002",
        "-R",
        "7003:localhost:7000",
        "g",
    ];
    let mut carries = Running::start(host.banger_command(&args).stdin(Stdio::null()));
    until("-L leads there", LIMIT, || told(&host, "hello\\n", "7001") == "hello\n");
    // SOCKS: no login, connect to localhost:7000, and what is to be carried.
    let socks = "\\005\\001\\000\\005\\001\\000\\003\\011localhost\\033\\130hello\\n";
    assert!(told(&host, socks, "7002").ends_with("hello\n"));
    let out = "printf 'hello\\n' | nc -w 5 127.0.0.1 7003";
    assert_eq!(host.banger(&["vm", "exec", "g", "--", "sh", "-c", out]).ok(), "hello\n");
    carries.kill();
    until("the guest listens no more", LIMIT, || {
        host.banger(&["vm", "exec", "g", "--", "sh", "-c", out]).stdout.is_empty()
    });
    // A port that is taken, and one that nobody may have.
    let taken = host.banger(&["vm", "ssh", "-N", "-L", "7000:localhost:1", "g"]).expect(125);
    assert!(taken.stderr.contains("listen on port 7000"), "{}", taken.stderr);
    let taken = host.banger(&["vm", "ssh", "-N", "-R", "7000:localhost:1", "g"]).expect(125);
    assert!(taken.stderr.contains("7000"), "{}", taken.stderr);
    let mut without = host.banger_command(&["vm", "ssh", "-A", "g", "--", "true"]);
    let without = without.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).status().unwrap();
    assert_eq!(without.code(), Some(125), "there is no agent to offer");
    let mut with =
        host.banger_command(&["vm", "ssh", "-A", "g", "--", "sh", "-c", "test -S $SSH_AUTH_SOCK"]);
    assert!(with.env("SSH_AUTH_SOCK", "/nowhere").stdin(Stdio::null()).status().unwrap().success());
}
