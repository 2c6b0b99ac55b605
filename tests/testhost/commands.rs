//! What runs in the host, through its guest agent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;

/// Any command that has nothing to wait for.
const SHORT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// How often whether a unit has ended is asked: each time costs the host some of its own time.
const ASK: Duration = Duration::from_millis(250);

/// How a command in the host ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i64,
    pub(crate) output: String,
}

impl Machine {
    /// A shell command that leaves no process behind; its output comes back at its end.
    pub(crate) fn run(&mut self, line: &str, limit: Duration) -> Ended {
        let pid = self.begin(&["/bin/sh", "-c", line]);
        let ended = self.await_end(pid, limit, line, |_| ());
        let said = ["out-data", "err-data"].map(|name| ended[name].as_str().map(base64));
        let output = said.into_iter().flatten().flatten().collect();
        Ended { code: code(&ended), output: text(output) }
    }

    pub(crate) fn write(&mut self, path: &str, text: &str) {
        let pid = self.begin(&["/bin/sh", "-c", "printf %s \"$1\" > \"$0\"", path, text]);
        let ended = self.await_end(pid, SHORT, path, |_| ());
        assert_eq!(code(&ended), 0, "write {path}");
    }

    /// Runs a script as a unit, whose leftovers end with it. What it says is shown as it comes.
    pub(crate) fn run_unit(&mut self, name: &str, script: &str, limit: Duration) -> Ended {
        let path = format!("/run/{name}.sh");
        self.write(&path, script);
        let seconds = format!("RuntimeMaxSec={}", limit.as_secs());
        let unit = format!("--unit={name}");
        let pid = self.begin(&[
            "/usr/bin/systemd-run",
            "--quiet",
            "--wait",
            "--collect",
            &unit,
            "-p",
            &seconds,
            // Who does not end when told to is killed after this.
            "-p",
            "TimeoutStopSec=5",
            "-p",
            "StandardOutput=file:/dev/virtio-ports/banger.out",
            "-p",
            "StandardError=inherit",
            "/bin/bash",
            &path,
        ]);
        let mut shown = self.log("out.log").len();
        let mut show = |machine: &Self| {
            let output = machine.log("out.log");
            eprint!("{}", String::from_utf8_lossy(&output[shown..]));
            shown = output.len();
        };
        let ended = self.await_end(pid, limit + SHORT, name, &mut show);
        Ended { code: code(&ended), output: text(self.log("out.log")) }
    }

    /// The host's journal so far.
    pub(crate) fn journal(&mut self) -> String {
        // Without the guest agent's own entries: it tells every question of ours.
        let all = "journalctl -b -o short-monotonic --no-pager";
        let others = "awk '/^\\[/ { own = / qemu-ga\\[/ } !own'";
        self.run(&format!("{all} | {others} > /dev/virtio-ports/banger.journal"), SHORT).ok();
        text(self.log("journal.log"))
    }

    /// Begins what may end the one who would tell of its end.
    pub(crate) fn let_run(&mut self, command: &[&str]) {
        self.begin(command);
    }

    fn begin(&mut self, command: &[&str]) -> u64 {
        let arguments = json!({"path": command[0], "arg": &command[1..], "capture-output": true});
        let begun = self.agent.call("guest-exec", arguments).unwrap_or_else(|e| panic!("{e}"));
        begun["pid"].as_u64().unwrap()
    }

    fn await_end(
        &mut self,
        pid: u64,
        limit: Duration,
        what: &str,
        mut meanwhile: impl FnMut(&Self),
    ) -> Value {
        let deadline = Instant::now() + limit;
        let mut pause = POLL;
        loop {
            let status = self.agent.call("guest-exec-status", json!({"pid": pid}));
            meanwhile(self);
            let status = status.unwrap_or_else(|error| panic!("{what}: {error}"));
            if status["exited"] == true {
                return status;
            }
            assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
            std::thread::sleep(pause);
            pause = (pause * 2).min(ASK);
        }
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.output);
        self.output
    }
}

/// As a shell counts; a signal's number comes after 128.
fn code(ended: &Value) -> i64 {
    let signal = || ended["signal"].as_i64().map_or(-1, |signal| 128 + signal);
    ended["exitcode"].as_i64().unwrap_or_else(signal)
}

/// The guest agent answers in base64.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bits, mut held, mut bytes) = (0_u32, 0, vec![]);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        (bits, held) = (bits << 6 | u32::from(digit(byte)), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held).to_le_bytes()[0]);
        }
    }
    bytes
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
