//! Programs that run on though nobody waits for them, see `contract::job`.
//!
//! ```text
//! @agent job   one request of a client's ──starts──> @agent keep-job: a session of its own
//!                                                     │ runs the program, writes its output
//!                                                     └ and how it ended
//! shelf        /var/lib/banger/jobs/<id>: what it is, how it ended, its output
//! output       what a program wrote, its end, in two files
//! ```
//!
//! A job has a process of the agent's that looks after it, and nothing in the server's memory: it lives
//! through the end of the client, of the daemon and of the server. That it lives is told by a lock
//! that the kernel takes back.
//!
//! What must not be done here: no growth without a bound, no job without its end written down.

mod keep;
mod output;
mod shelf;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use banger_agent::contract::codec;
use banger_agent::contract::job::{JobReply, JobRequest, JobState};

pub(crate) use keep::{VERB as KEEP, keep};

use crate::standard::standard;
use shelf::Shelf;

/// One request. What fails is told on standard error, and as exit status as a shell would.
pub(crate) fn run() -> ExitCode {
    let mut asked = vec![];
    let asked =
        (&*standard(0)).take(codec::MAX_BYTES as u64).read_to_end(&mut asked).map(|_| asked);
    let request = asked
        .map_err(|error| error.to_string())
        .and_then(|bytes| codec::decode::<JobRequest>(&bytes).map_err(|error| error.to_string()));
    let done = match request {
        Ok(JobRequest::Start(start)) => return keep::start(&start),
        Ok(JobRequest::List) => {
            Shelf::standard().list().and_then(|jobs| reply(&JobReply::Jobs(jobs)))
        }
        Ok(JobRequest::Output { id, follow }) => {
            Shelf::standard().output(id, follow, &mut *standard(1), &mut *standard(2))
        }
        // Asked by a host that knows more than this agent.
        Err(why) => {
            say(format_args!("job: {why}"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has left.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::FAILURE
        }
    }
}

/// Its program's process, while it runs.
pub(crate) fn running(id: u32) -> Option<i32> {
    let job = Shelf::standard().job(id).filter(|job| job.state == JobState::Running)?;
    i32::try_from(job.pid).ok()
}

fn reply(reply: &JobReply) -> io::Result<()> {
    let bytes = codec::encode(reply).map_err(io::Error::other)?;
    standard(1).write_all(&bytes)
}

fn say(text: impl std::fmt::Display) {
    drop(writeln!(io::stderr(), "{text}"));
}
