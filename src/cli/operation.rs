//! Follows one operation of the daemon to its end: progress, Ctrl-C, lost connections.
//!
//! The operation belongs to the daemon. A lost connection loses nothing: the same envelope is sent
//! again, and its op id makes the answer the known one. Ctrl-C asks for cancellation where going
//! back is possible, and a second Ctrl-C only stops watching.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::client::{Client, lost};
use super::error::CliError;
use super::exit::Exit;
use super::ui::progress::Track;
use crate::model::OpId;
use crate::wire::frame::FrameError;
use crate::wire::reply::{Answer, OpInfo, Reply, VmInfo};
use crate::wire::request::Request;

/// How long a daemon that went away may take to come back.
pub(super) const RETURN_LIMIT: Duration = Duration::from_secs(20);
pub(super) const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// What Ctrl-C means to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// It builds something up: go back.
    Cancel,
    /// It tears something down, which only goes forward: stop watching.
    Leave,
    /// As `Cancel`, unless others wait for the same.
    Withdraw,
}

/// An operation that ended well.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) op: Option<OpInfo>,
    pub(crate) vm: Option<VmInfo>,
}

impl Ended {
    /// Why nothing had to be done.
    pub(crate) fn unchanged(&self) -> Option<&str> {
        let op = self.op.as_ref().filter(|op| op.outcome == "unchanged")?;
        Some(op.cause.as_deref().unwrap_or("nothing had to be done"))
    }
}

/// One that did not, and the VM that it was about, so far as it got to make one.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) error: Box<CliError>,
    pub(crate) vm_id: Option<String>,
    pub(crate) interrupted: bool,
}

impl From<Broken> for CliError {
    fn from(broken: Broken) -> Self {
        *broken.error
    }
}

/// Ctrl-C and the requests to end that come from elsewhere.
#[derive(Debug)]
pub(crate) struct Interrupts {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Interrupts {
    pub(crate) fn new() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|error| CliError::from_error("listen for signals", &error));
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// The next one's number. Cancel-safe.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.int.recv() => 2,
            _ = self.term.recv() => 15,
            _ = self.hup.recv() => 1,
        }
    }
}

/// Sends `request` and follows it.
pub(crate) async fn run(
    client: &mut Client,
    op: OpId,
    request: &Request,
    track: &mut Track<'_>,
    on_interrupt: OnInterrupt,
) -> Result<Ended, Broken> {
    let mut follow = Follow { op, followed: op, vm_id: None, signal: None, lost: None, seen: 0 };
    match follow.follow(client, request, track, on_interrupt).await {
        Ok(ended) => Ok(ended),
        Err(mut error) => {
            if let Some(signal) = follow.signal {
                error.exit = Exit::Interrupted(signal);
            }
            let error = Box::new(error.of(op));
            Err(Broken { error, vm_id: follow.vm_id, interrupted: follow.signal.is_some() })
        }
    }
}

struct Follow {
    op: OpId,
    /// What the daemon took up for it: another one's, if that does the same already.
    followed: OpId,
    vm_id: Option<String>,
    /// The first signal to end that came.
    signal: Option<u8>,
    /// Since when no reply has come, once the daemon was lost. One that takes a connection and says
    /// nothing on it is still lost.
    lost: Option<Instant>,
    /// The number of the last event; one that finds the operation again is told all of them.
    seen: u64,
}

impl Follow {
    async fn follow(
        &mut self,
        client: &mut Client,
        request: &Request,
        track: &mut Track<'_>,
        on_interrupt: OnInterrupt,
    ) -> Result<Ended, CliError> {
        let mut interrupts = Interrupts::new()?;
        if let Err(error) = client.send(self.op, None, request).await {
            self.resume(client, request, track, &error).await?;
        }
        loop {
            let reply = tokio::select! {
                reply = client.receive() => reply,
                number = interrupts.next() => {
                    self.interrupted(client, number, on_interrupt, track).await?;
                    continue;
                }
            };
            if reply.is_ok() {
                self.lost = None;
            }
            match reply {
                Ok(Reply::Accepted { op_id }) => self.followed = OpId(op_id),
                Ok(Reply::Event(event)) => {
                    // Of one connection's events some may be of other operations.
                    let again = event.seq > 0 && event.seq <= self.seen;
                    self.seen = self.seen.max(event.seq);
                    if again {
                        continue;
                    }
                    if event.op_id.as_ref().is_none_or(|op| *op == self.followed.to_string()) {
                        if event.vm_id.is_some() {
                            self.vm_id = event.vm_id;
                        }
                        track.event(&event.kind);
                    }
                }
                Ok(Reply::Done(Answer::Ended { op, vm })) => {
                    self.vm_id = vm.as_ref().map(|vm| vm.id.clone());
                    return judge(*op, vm.map(|vm| *vm));
                }
                Ok(Reply::Done(Answer::Nothing)) => return Ok(Ended { op: None, vm: None }),
                Ok(Reply::Failed(failure)) => return Err(failure.into()),
                Ok(other) => return Err(CliError::unexpected("progress", &other)),
                Err(error) => self.resume(client, request, track, &error).await?,
            }
        }
    }

    /// Finds the daemon again and asks for the same operation.
    async fn resume(
        &mut self,
        client: &mut Client,
        request: &Request,
        track: &Track<'_>,
        error: &FrameError,
    ) -> Result<(), CliError> {
        if matches!(error, FrameError::Codec(_)) {
            return Err(lost(error)); // It would say the same again.
        }
        let lost_again = self.lost.is_some();
        let until = *self.lost.get_or_insert_with(Instant::now) + RETURN_LIMIT;
        if lost_again {
            tokio::time::sleep(RETURN_PAUSE).await;
        } else {
            track.note("lost the daemon; waiting for it to come back");
        }
        while Instant::now() < until {
            if client.reconnect().await.is_ok() && client.send(self.op, None, request).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(RETURN_PAUSE).await;
        }
        let mut failure = lost(error);
        failure.exit = Exit::Unreachable;
        Err(failure.hint(format!("what became of it: banger ops show {}", self.followed)))
    }

    async fn interrupted(
        &mut self,
        client: &Client,
        number: u8,
        on_interrupt: OnInterrupt,
        track: &Track<'_>,
    ) -> Result<(), CliError> {
        let first = self.signal.is_none();
        self.signal.get_or_insert(number);
        if first && on_interrupt == OnInterrupt::Cancel {
            track.note("cancelling; what was made is taken back (again to stop waiting)");
            // The connection is taken by the operation's own replies.
            let mut other = Client::connect(client.socket()).await?;
            return cancel(&mut other, self.op).await;
        }
        if first && on_interrupt == OnInterrupt::Withdraw {
            return self.withdraw(client, number, track).await;
        }
        let error = CliError::new(Exit::Interrupted(number), "interrupted; the daemon goes on");
        Err(error.hint(format!("watch it: banger ops watch {}", self.followed)))
    }

    /// Its end is waited for, unless it goes on for others.
    async fn withdraw(
        &self,
        client: &Client,
        number: u8,
        track: &Track<'_>,
    ) -> Result<(), CliError> {
        let mut other = Client::connect(client.socket()).await?;
        let request = Request::WithdrawOp { op: self.op.to_string() };
        match other.ask(super::clock::new_op_id()?, request).await {
            Ok(_) => track.note("cancelling (again to stop waiting)"),
            // It ended in the meantime: its end will be told.
            Err(error) if matches!(error.exit, Exit::NotFound) => {}
            Err(error) if error.code.as_deref() == Some("in-use") => {
                let message = format!("interrupted; {}", error.message);
                let error = CliError::new(Exit::Interrupted(number), message);
                let hint = format!("end it for all: banger ops cancel {}", self.followed);
                return Err(error.hint(hint));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Asks the daemon to take an operation back; its end is told to whoever follows it.
async fn cancel(client: &mut Client, op: OpId) -> Result<(), CliError> {
    let request = Request::CancelOp { op: op.to_string() };
    let asked = client.ask(super::clock::new_op_id()?, request).await;
    match asked {
        // It ended in the meantime: the follower will see how.
        Err(error) if matches!(error.exit, Exit::NotFound) => Ok(()),
        Err(error) if error.code.as_deref() == Some("refused") => Ok(()),
        other => other.map(drop),
    }
}

/// An operation that was taken back or got stuck has ended, but not well.
fn judge(op: OpInfo, vm: Option<VmInfo>) -> Result<Ended, CliError> {
    let cause = op.cause.as_deref().unwrap_or("no cause was given");
    let at = op.step.as_deref().map(|step| format!(" at {step}")).unwrap_or_default();
    let what = format!("{} {}", op.kind.replace('-', " "), op.subject);
    let message = match op.outcome.as_str() {
        "rolled-back" => format!("{what} failed{at} and was undone: {cause}"),
        "stuck" => {
            let undo = op.undo.as_deref().unwrap_or("no cause was given");
            format!("{what} is stuck{at}: {cause}; undoing it failed: {undo}")
        }
        _ => return Ok(Ended { op: Some(op), vm }),
    };
    let mut error = CliError::failed(message);
    // The VM's own record tells more: the console's last lines, for instance.
    let failure = vm.and_then(|vm| vm.last_failure);
    if let Some(failure) = failure.filter(|failure| failure.op_id.as_ref() == Some(&op.id)) {
        error.code = Some(failure.code);
        error.detail = failure.detail;
        error.hints = failure.hints;
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{ColorChoice, Output};
    use crate::cli::ui::progress::Progress;
    use crate::wire::frame::Frames;
    use crate::wire::hello::DAEMON;
    use crate::wire::request::Envelope;

    /// The clock stands still and jumps to the next timer when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_hangs_up_each_time_is_given_up_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let greeting = Duration::from_secs(3600);
        let server = async {
            for tries in 0_u32.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut frames = Frames::accept(stream, DAEMON, greeting).await.unwrap();
                frames.receive::<Envelope>().await.unwrap();
                assert!(tries < 1000, "it does not pause between two tries");
            }
        };
        let output = Output::new(ColorChoice::Never, true, false);
        let board = Progress::silent(&output);
        let mut track = board.track(None);
        let following = async {
            let mut client = Client::connect(&socket).await.unwrap();
            let request = Request::StartVm { vm: "web".to_owned() };
            let (op, on_interrupt) = (OpId([7; 16]), OnInterrupt::Leave);
            run(&mut client, op, &request, &mut track, on_interrupt).await.unwrap_err()
        };
        let broken = tokio::select! {
            broken = following => broken,
            () = server => unreachable!("it serves for ever"),
        };
        assert_eq!(broken.error.exit, Exit::Unreachable);
        assert!(broken.error.hints.iter().any(|hint| hint.contains("ops show")));
    }
}
