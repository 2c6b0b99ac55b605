//! A Firecracker of a test's own: the fake one, which always is there, or a real one.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::hardware;
use super::process::{Outcome, Running, until};
use super::stock;

const UP: Duration = Duration::from_secs(20);

/// Which programs play it.
#[derive(Clone, Debug)]
pub(crate) enum Vmm {
    Fake,
    Real(PathBuf),
}

impl Vmm {
    /// What `FIRECRACKER_BIN` names.
    pub(crate) fn real() -> Option<Self> {
        named("FIRECRACKER_BIN").map(Self::Real)
    }

    /// The same, or a line about what is missing to start guests by it.
    pub(crate) fn real_with_guests() -> Option<Self> {
        let missing = if named("FIRECRACKER_BIN").is_none() || named("JAILER_BIN").is_none() {
            "FIRECRACKER_BIN and JAILER_BIN name no programs"
        } else if !hardware::usable() {
            "there is no usable hardware virtualisation"
        } else {
            return Self::real();
        };
        eprintln!("skipped with a real Firecracker: {missing}");
        None
    }

    pub(crate) fn jailer(&self) -> PathBuf {
        match self {
            Self::Fake => example("fake-jailer"),
            Self::Real(_) => named("JAILER_BIN").expect("JAILER_BIN"),
        }
    }

    pub(crate) fn firecracker(&self) -> PathBuf {
        match self {
            Self::Fake => example("fake-firecracker"),
            Self::Real(firecracker) => firecracker.clone(),
        }
    }
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file())
}

/// Examples are built with all tests, but not with a single one.
fn example(name: &str) -> PathBuf {
    let path = stock::programs().join("examples").join(name);
    assert!(path.is_file(), "{}: build it by `cargo build --examples`", path.display());
    path
}

/// A process with a directory of its own, which is its working directory too.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) dir: tempfile::TempDir,
    program: PathBuf,
    running: Option<Running>,
}

impl Process {
    /// With `faults`, which only the fake one plays. Started by `start`.
    pub(crate) fn prepare(vmm: &Vmm, faults: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("firecracker");
        symlink(vmm.firecracker(), &program).unwrap();
        if matches!(vmm, Vmm::Fake) {
            fs::write(dir.path().join("firecracker.faults"), faults).unwrap();
        }
        for file in ["kernel", "disk"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        Self { dir, program, running: None }
    }

    pub(crate) fn start(vmm: &Vmm, faults: &str) -> Self {
        let mut process = Self::prepare(vmm, faults);
        let mut command = process.command(&["--api-sock", "api.sock", "--id", "a-vm"]);
        process.running = Some(Running::start(&mut command));
        let socket = process.socket();
        until("the API listens", UP, || UnixStream::connect(&socket).is_ok());
        process
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// To its end.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        let mut command = self.command(args);
        Outcome::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.running.as_ref().unwrap().0.id()).unwrap()
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let running = &mut self.running.as_mut().unwrap().0;
        let mut status = None;
        until("the process ends", UP, || {
            status = running.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Status and body of an answer; no body is null, one that is no JSON is its text.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.say(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub(crate) fn say(&self, text: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(UP)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        answer(&mut stream)
    }
}

/// Read up to the length that it names.
pub(crate) fn answer(stream: &mut UnixStream) -> (u16, Value) {
    let mut heard = String::new();
    loop {
        if let Some((head, body)) = heard.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                let value = match body {
                    "" => Value::Null,
                    body => serde_json::from_str(body).unwrap_or_else(|_| body.into()),
                };
                return (status, value);
            }
        }
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "the API hung up after {heard:?}");
        heard.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
}
