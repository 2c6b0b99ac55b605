//! A health check: one command at a time, beside everything else that the host asks for.
//!
//! ```text
//! Check(op) ──new──> a thread of its own, the one before is killed
//!           ──known──> still running, or how it ended
//! ```
//!
//! The link's thread never waits for a command: a check that hangs must not keep a shutdown waiting.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use banger_agent::contract::control::{CHECK_OUTPUT_BYTES, CheckEnd, GuestEvent};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a command that prints nothing is looked at.
const LOOK: Duration = Duration::from_millis(20);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The last check that was asked for.
#[derive(Debug, Default)]
pub(super) struct Checks {
    last: Option<Check>,
}

#[derive(Debug)]
struct Check {
    op_id: [u8; 16],
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: Option<(CheckEnd, Vec<u8>)>,
    /// Somebody asked for another one.
    dropped: bool,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checks {
    /// Begins it, or tells how it stands.
    pub(super) fn answer(
        &mut self,
        op_id: [u8; 16],
        command: &str,
        limit: Duration,
        env: &[(String, String)],
    ) -> GuestEvent {
        let known = self.last.as_ref().filter(|check| check.op_id == op_id);
        let shared = match known {
            Some(check) => Arc::clone(&check.shared),
            None => self.begin(op_id, command, limit, env),
        };
        match lock(&shared).ended.clone() {
            Some((end, output)) => GuestEvent::Checked { op_id, end, output },
            None => GuestEvent::CheckRuns { op_id },
        }
    }

    fn begin(
        &mut self,
        op_id: [u8; 16],
        command: &str,
        limit: Duration,
        env: &[(String, String)],
    ) -> Arc<Mutex<Shared>> {
        if let Some(before) = &self.last {
            lock(&before.shared).dropped = true;
        }
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (command, env, theirs) = (command.to_owned(), env.to_vec(), Arc::clone(&shared));
        let run = move || {
            let ended = run(&command, limit, &env, &theirs);
            lock(&theirs).ended = Some(ended);
        };
        if let Err(error) = std::thread::Builder::new().name("check".into()).spawn(run) {
            lock(&shared).ended = Some((CheckEnd::NotStarted(error.to_string()), vec![]));
        }
        self.last = Some(Check { op_id, shared: Arc::clone(&shared) });
        shared
    }
}

fn run(
    command: &str,
    limit: Duration,
    env: &[(String, String)],
    shared: &Mutex<Shared>,
) -> (CheckEnd, Vec<u8>) {
    let not_started = |error: std::io::Error| (CheckEnd::NotStarted(error.to_string()), vec![]);
    let (mut reader, mut child) = match start(command, env) {
        Ok(started) => started,
        Err(error) => return not_started(error),
    };
    let (deadline, mut output, mut open) = (Instant::now() + limit, vec![], true);
    let end = loop {
        match child.try_wait() {
            Ok(Some(status)) => break ended(status),
            Ok(None) if Instant::now() >= deadline => break killed(&mut child, CheckEnd::TimedOut),
            Ok(None) if lock(shared).dropped => {
                break killed(&mut child, CheckEnd::NotStarted("another was asked for".to_owned()));
            }
            Ok(None) => {}
            Err(error) => break CheckEnd::NotStarted(error.to_string()),
        }
        open = open && take(&mut reader, LOOK, &mut output);
        if !open {
            pause(LOOK);
        }
    };
    // What it had printed by then; what it left behind may print on for ever.
    while open && take(&mut reader, Duration::ZERO, &mut output) {
        open = output.len() < CHECK_OUTPUT_BYTES;
    }
    (end, output)
}

fn start(command: &str, env: &[(String, String)]) -> std::io::Result<(std::io::PipeReader, Child)> {
    let (reader, writer) = std::io::pipe()?;
    #[allow(clippy::disallowed_methods, reason = "the agent starts what it is asked to")]
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir("/").env_clear();
    shell.env("HOME", "/root").env("USER", "root").env("PATH", PATH);
    shell.envs(env.iter().map(|(name, value)| (name, value)));
    shell.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let child = shell.spawn()?;
    // The server's protection from the out-of-memory killer is not its commands'.
    drop(std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0"));
    Ok((reader, child))
}

/// Takes what comes within `wait`, and keeps the end of it. False: nothing more will come, or came.
fn take(reader: &mut std::io::PipeReader, wait: Duration, output: &mut Vec<u8>) -> bool {
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    if !poll(&mut fds, timeout).is_ok_and(|count| count > 0) {
        return wait > Duration::ZERO;
    }
    let mut bytes = [0; CHECK_OUTPUT_BYTES];
    match reader.read(&mut bytes) {
        Ok(0) | Err(_) => false,
        Ok(length) => {
            output.extend_from_slice(bytes.get(..length).unwrap_or_default());
            let old = output.len().saturating_sub(CHECK_OUTPUT_BYTES);
            output.drain(..old);
            true
        }
    }
}

fn pause(time: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO));
}

fn killed(child: &mut Child, end: CheckEnd) -> CheckEnd {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    drop(child.wait());
    end
}

fn ended(status: ExitStatus) -> CheckEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => CheckEnd::Exited(code),
        (None, signal) => CheckEnd::Killed(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Asks until it has ended.
    fn check(checks: &mut Checks, op: u8, command: &str, limit: Duration) -> (CheckEnd, String) {
        let env = [("WHO".to_owned(), "me".to_owned())];
        let begun = Instant::now();
        loop {
            match checks.answer([op; 16], command, limit, &env) {
                GuestEvent::Checked { op_id, end, output } => {
                    assert_eq!(op_id, [op; 16]);
                    return (end, String::from_utf8_lossy(&output).into_owned());
                }
                GuestEvent::CheckRuns { op_id } => assert_eq!(op_id, [op; 16]),
                other => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < LIMIT, "{command} never ends");
            pause(Duration::from_millis(1));
        }
    }

    #[test]
    fn how_it_ended_and_what_it_said_is_told_and_told_again() {
        let mut checks = Checks::default();
        let said = check(&mut checks, 1, "echo $WHO; echo bad >&2; exit 3", LIMIT);
        assert_eq!(said, (CheckEnd::Exited(3), "me\nbad\n".to_owned()));
        assert_eq!(check(&mut checks, 1, "another", LIMIT), said, "not run again");
        assert_eq!(check(&mut checks, 2, "kill -9 $$", LIMIT).0, CheckEnd::Killed(9));
        assert_eq!(check(&mut checks, 3, "true", LIMIT), (CheckEnd::Exited(0), String::new()));
    }

    #[test]
    fn one_that_hangs_is_ended_and_so_is_one_that_another_follows() {
        let mut checks = Checks::default();
        let limit = Duration::from_millis(50);
        let (end, output) = check(&mut checks, 1, "echo before; sleep 100; echo after", limit);
        assert_eq!((end, output.as_str()), (CheckEnd::TimedOut, "before\n"));
        // What it leaves in the background holds its output open, and nobody up.
        let (end, _) = check(&mut checks, 2, "sleep 100 & exit 0", LIMIT);
        assert_eq!(end, CheckEnd::Exited(0));
        checks.answer([3; 16], "sleep 100", LIMIT, &[]);
        let before = Arc::clone(&checks.last.as_ref().unwrap().shared);
        assert_eq!(check(&mut checks, 4, "exit 4", LIMIT).0, CheckEnd::Exited(4));
        let begun = Instant::now();
        while lock(&before).ended.is_none() {
            assert!(begun.elapsed() < LIMIT, "the first one runs on");
            pause(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_end_of_much_output_is_kept() {
        let command = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
        let (end, output) = check(&mut Checks::default(), 1, command, LIMIT);
        assert_eq!(end, CheckEnd::Exited(0));
        assert_eq!(output.len(), CHECK_OUTPUT_BYTES);
        assert!(output.ends_with("line 2999\n"), "{output}");
    }
}
