//! Who looks after a job: a process in a session of its own, which starts the program, writes down
//! what it says and how it ended, and ends with it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_agent::contract::codec;
use banger_agent::contract::exec::AGENT;
use banger_agent::contract::job::{JobInfo, JobReply, JobState, StartJob};
use nix::time::{ClockId, clock_gettime};

use super::output::{CHUNK, Output, Stream};
use super::shelf::Shelf;
use super::{reply, say};
use crate::ssh::user_command;
use crate::standard::standard;

/// The argument by which the agent is told to be this.
pub(crate) const VERB: &str = "keep-job";
/// What a program that has ended left in the pipes is there at once.
const LAST_WORDS: Duration = Duration::from_secs(1);
const STARTED: &str = "started";

/// For a client: ends when the job runs, and tells its number.
pub(super) fn start(start: &StartJob) -> ExitCode {
    let began = begin(start);
    let (id, told) = match began {
        Ok(began) => began,
        Err(error) => {
            say(format_args!("job: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if told == STARTED {
        return match reply(&JobReply::Started { id }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    Shelf::standard().forget(id);
    let (status, why) = told.split_once(' ').unwrap_or(("126", "nobody looks after it"));
    say(why);
    ExitCode::from(status.parse::<u8>().unwrap_or(126))
}

/// The new job's number, and what its keeper says of it.
fn begin(start: &StartJob) -> io::Result<(u32, String)> {
    let id = Shelf::standard().claim()?;
    let request = codec::encode(start).map_err(io::Error::other)?;
    #[allow(clippy::disallowed_methods, reason = "this very program, as another process")]
    let mut keeper = Command::new("/proc/self/exe");
    keeper.arg0(AGENT).args([VERB, &id.to_string()]);
    keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut keeper = keeper.process_group(0).spawn()?;
    if let Some(mut stdin) = keeper.stdin.take() {
        stdin.write_all(&request)?;
    }
    let mut told = String::new();
    if let Some(stdout) = &mut keeper.stdout {
        stdout.read_to_string(&mut told)?;
    }
    Ok((id, told))
}

/// For the agent itself: the job's whole life.
pub(crate) fn keep(id: &str) -> ExitCode {
    let _ = nix::unistd::setsid();
    let told = match prepare(id) {
        Ok(kept) => {
            say_and_close(STARTED);
            kept.live();
            return ExitCode::SUCCESS;
        }
        Err(told) => told,
    };
    say_and_close(&told);
    ExitCode::FAILURE
}

/// Whoever asked reads to the end of this.
fn say_and_close(text: &str) {
    drop(standard(1).write_all(text.as_bytes()));
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for number in [0, 1, 2] {
            // SAFETY: both descriptors are open; the standard ones are owned by nobody in Rust.
            #[allow(unsafe_code, reason = "dup2 onto the standard streams")]
            let _ = unsafe { nix::libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), number) };
        }
    }
}

struct Kept {
    shelf: Shelf,
    id: u32,
    child: Child,
    output: Output,
    /// Locked while this process lives.
    lock: File,
}

/// An error is a status and why, in words.
fn prepare(id: &str) -> Result<Kept, String> {
    let other = |error: &dyn std::fmt::Display| format!("126 {error}");
    let id: u32 = id.parse().map_err(|error| other(&error))?;
    let mut request = vec![];
    standard(0).read_to_end(&mut request).map_err(|error| other(&error))?;
    let start: StartJob = codec::decode(&request).map_err(|error| other(&error))?;
    let shelf = Shelf::standard();
    let output = Output::new(&shelf.dir(id)).map_err(|error| other(&error))?;
    let command = user_command(&start.user, &start.argv, &start.env, start.cwd.as_deref());
    let (mut command, directory) = command.map_err(|(status, why)| format!("{status} {why}"))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| {
        let program = start.argv.first().map_or("", String::as_str);
        match (directory.why_not(&error), error.kind()) {
            (Some(why), _) => format!("126 {why}"),
            (None, io::ErrorKind::NotFound) => format!("127 {program}: not found"),
            (None, _) => format!("126 {program}: {error}"),
        }
    })?;
    // As it was asked for, whatever it runs under.
    let asked = match start.argv.as_slice() {
        [agent, _, command @ ..] if agent == AGENT => command.to_vec(),
        _ => start.argv,
    };
    let job = JobInfo {
        id,
        argv: asked,
        user: start.user,
        pid: child.id(),
        started_unix_ms: unix_ms(),
        ended_unix_ms: None,
        state: JobState::Running,
    };
    let lock = shelf.put(job).map_err(|error| other(&error))?;
    Ok(Kept { shelf, id, child, output, lock })
}

impl Kept {
    fn live(mut self) {
        let output = Arc::new(Mutex::new(self.output));
        let (ended, ends) = channel();
        let streams: [(Option<Box<dyn io::Read + Send>>, Stream); 2] = [
            (self.child.stdout.take().map(|out| Box::new(out) as _), Stream::Out),
            (self.child.stderr.take().map(|err| Box::new(err) as _), Stream::Err),
        ];
        for (from, stream) in streams {
            let (output, ended) = (Arc::clone(&output), ended.clone());
            let read = move || {
                if let Some(from) = from {
                    write_down(from, stream, &output);
                }
                drop(ended);
            };
            drop(std::thread::Builder::new().name("output".into()).spawn(read));
        }
        drop(ended);
        let exit = self.child.wait();
        last_words(&ends, LAST_WORDS);
        let state = exit.map_or(JobState::Lost, state);
        drop(self.shelf.end(self.id, state, unix_ms()));
        // What it left in the background may go on writing.
        last_words(&ends, Duration::MAX);
        drop(self.lock);
    }
}

/// Until both streams have ended, or for so long.
fn last_words(ends: &Receiver<()>, limit: Duration) {
    while let Err(RecvTimeoutError::Timeout) =
        ends.recv_timeout(limit.min(Duration::from_secs(3600)))
    {
        if limit < Duration::MAX {
            return;
        }
    }
}

/// A disk that is full must not stop the program: what it says is lost then.
fn write_down(mut from: Box<dyn io::Read + Send>, stream: Stream, output: &Mutex<Output>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
                drop(output.write(stream, buffer.get(..length).unwrap_or_default()));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn state(exit: ExitStatus) -> JobState {
    match (exit.code(), exit.signal()) {
        (Some(code), _) => JobState::Exited(code),
        (None, Some(signal)) => JobState::Killed(signal),
        (None, None) => JobState::Lost,
    }
}

fn unix_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| {
        u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap_or(0)
    })
}
