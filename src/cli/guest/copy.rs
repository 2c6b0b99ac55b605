//! Files to and from a guest: this end of `banger_copy` on a thread, the guest's as a program of its
//! agent, by the lane or by SSH, and a socket between the thread and the way.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use banger_agent::contract::exec::AGENT;
use banger_copy::{
    CopyError, Progress, Receiver, Task, receive, receive_stream, send, send_stream, write_task,
};
use tokio::sync::{mpsc, watch};

use super::session::{Guest, gone};
use super::words::Words;
use super::{vigil, way};
use crate::cli::client::Client;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::Interrupts;
use crate::host::guest::ssh::{ExecSpec, ExitKind, GuestError, GuestIo, Program};
use crate::model::OpId;

/// What guests make of modes here: a program of theirs must not run with its owner's rights.
const HERE: Receiver = Receiver { durable: false, modes: 0o1777 };
const BUFFER: usize = 256 << 10;

#[derive(Debug)]
pub(crate) enum Copy {
    To {
        from: Vec<PathBuf>,
        place: PathBuf,
    },
    /// Of standard input.
    StreamTo {
        place: PathBuf,
    },
    From {
        paths: Vec<PathBuf>,
        place: PathBuf,
    },
    /// To standard output.
    StreamFrom {
        path: PathBuf,
    },
}

/// What there was to copy, and what cannot be.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) progress: Progress,
    pub(crate) skipped: Vec<String>,
}

impl Guest {
    /// `watch` is told how far it is.
    pub(crate) async fn copy(
        &mut self,
        op: OpId,
        copy: Copy,
        watch: watch::Sender<Progress>,
        daemon: impl Future<Output = Option<Client>>,
    ) -> Result<Copied, CliError> {
        let failed = |error: std::io::Error| CliError::from_error("set up the copy", &error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        theirs.set_nonblocking(true).map_err(failed)?;
        let theirs = tokio::net::UnixStream::from_std(theirs).map_err(failed)?;
        let (stdin, stdout) = theirs.into_split();
        let stdin = tokio::io::BufReader::with_capacity(BUFFER, stdin);
        let mut words = Words::default();
        let io = GuestIo { stdin, stdout, stderr: &mut words };
        let mut half = tokio::task::spawn_blocking(move || half(copy, ours, &watch));

        let argv = [AGENT, "copy"].map(str::to_owned).to_vec();
        let program = Program::Argv { argv, cwd: None };
        let spec = ExecSpec { program, env: vec![], op_id: op, tty: None, agent: false };
        let mut interrupts = Interrupts::new()?;
        let (vm_id, name) = (self.vm_id().to_owned(), self.name().to_owned());
        let mut vigil = Box::pin(vigil::ended(daemon, op, vm_id));
        let ended = {
            let mut exec = Box::pin(self.way().exec(spec, io, mpsc::channel(1).1));
            tokio::select! {
                ended = &mut exec => ended,
                number = interrupts.next() => {
                    return Err(CliError::new(Exit::Interrupted(number), "interrupted")
                        .hint("the same command again goes on where it was"));
                }
                how = &mut vigil => return Err(gone(&name, &how)),
            }
        };
        // The way has closed its end of the socket, so the thread comes to an end as well.
        let here = (&mut half)
            .await
            .unwrap_or_else(|error| Err(CopyError::Broken(std::io::Error::other(error))));
        let words = words.lines();
        match (here, ended) {
            (Ok(mut copied), Ok(ExitKind::Code(0))) => {
                copied.skipped.extend(words);
                Ok(copied)
            }
            // An agent of before copies were known.
            (_, Ok(ExitKind::Code(127 | 2))) => Err(CliError::failed(format!(
                "{name}: the agent in it is of an older release, which cannot copy"
            ))
            .hint(format!("a guest keeps the agent of its start: banger vm restart {name}"))
            .hint(format!("or scp: banger ssh-config --install, then scp FILE {name}.vm:"))),
            // Whoever read standard output has left.
            (Err(CopyError::Here { source, .. }), _)
                if source.kind() == std::io::ErrorKind::BrokenPipe =>
            {
                Err(CliError::stdout_closed())
            }
            (Err(error @ (CopyError::Here { .. } | CopyError::Refused { .. })), _) => {
                Err(CliError::from_error("copy", &error))
            }
            (Err(CopyError::There(why)), _) => Err(CliError::failed(format!("{name}: {why}"))),
            (_, Err(GuestError::Lost { .. })) => {
                match tokio::time::timeout(super::session::NEWS_LIMIT, &mut vigil).await {
                    Ok(how) => Err(gone(&name, &how)),
                    Err(_) => Err(CliError::failed(format!("{name}: the connection was lost"))),
                }
                .map_err(|error| error.hint("the same command again goes on where it was"))
            }
            (_, Err(error)) => Err(way::explain(&name, &error)),
            (Err(error), Ok(_)) => {
                let failure = CliError::from_error(&name, &error);
                Err(words
                    .last()
                    .map_or(failure, |words| CliError::failed(format!("{name}: {words}"))))
            }
            (Ok(_), Ok(_)) => Err(CliError::failed(format!("{name}: {}", words.join("; ")))),
        }
    }
}

/// Blocks. The other half is told its task first.
fn half(
    copy: Copy,
    socket: UnixStream,
    watch: &watch::Sender<Progress>,
) -> Result<Copied, CopyError> {
    let (from, to) = (&socket, &socket);
    let tell = &mut |progress| {
        watch.send_replace(progress);
    };
    let copied = |progress| Copied { progress, skipped: vec![] };
    match copy {
        Copy::To { from: paths, place } => {
            write_task(&Task::Receive(place), to)?;
            let (progress, skipped) = send(&paths, to, from, tell)?;
            let line =
                |path: PathBuf| format!("{}: left out, no file, directory or link", path.display());
            Ok(Copied { progress, skipped: skipped.into_iter().map(line).collect() })
        }
        Copy::StreamTo { place } => {
            write_task(&Task::Receive(place), to)?;
            let now = i64::try_from(clock::unix_ms() / 1000).unwrap_or(0);
            send_stream(std::io::stdin().lock(), (now, 0), to, from, tell).map(copied)
        }
        Copy::From { paths, place } => {
            write_task(&Task::Send(paths), to)?;
            receive(HERE, &place, from, to, tell).map(copied)
        }
        Copy::StreamFrom { path } => {
            write_task(&Task::Send(vec![path]), to)?;
            receive_stream(std::io::stdout().lock(), from, to, tell).map(copied)
        }
    }
}
