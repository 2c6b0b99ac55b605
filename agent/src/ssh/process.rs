//! A command's life: its output goes to the client as fast as the client takes it, its input
//! comes from the backlog, and its end is told. When the client leaves first, the command is
//! hung up, and killed if that does not end it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nix::pty::Winsize;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{Notify, watch};

use super::backlog::Backlog;
use super::exec::Failure;
use super::pty::Master;
use super::sink::{Sink, Stream};
use crate::log::{self, Op};

/// One packet of the default size.
const CHUNK: usize = 32 * 1024;
/// Between the hang-up and the kill.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);
/// How long a terminal is watched for output after its shell has exited.
const QUIET: Duration = Duration::from_millis(50);

pub(super) enum Streams {
    Pipes(Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>),
    Terminal(Master),
}

pub(super) struct Running {
    child: Child,
    control: Arc<Control>,
    pipes: (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>),
    story: Option<Story>,
}

/// What can be done to a running command from outside of its task.
#[derive(Debug)]
pub(super) struct Control {
    pid: Pid,
    /// Once set, the pid may be someone else's.
    ended: AtomicBool,
    master: Option<Master>,
}

/// The client's end of a channel.
pub(super) struct Outlet {
    pub(super) sink: Sink,
    pub(super) activity: Arc<Notify>,
    /// Closed when the client is gone.
    pub(super) open: watch::Receiver<()>,
}

/// What the log tells of a command that belongs to an operation.
#[derive(Debug)]
pub(super) struct Story {
    op_id: [u8; 16],
    program: String,
    began: Instant,
}

impl Story {
    pub(super) fn new(op_id: [u8; 16], program: String) -> Self {
        Self { op_id, program, began: Instant::now() }
    }

    fn end(&self, how: &str) {
        let millis = self.began.elapsed().as_millis();
        log::line(format_args!("{} {how} after {millis} ms, {}", self.program, Op(self.op_id)));
    }
}

impl Running {
    pub(super) fn new(child: Child, pid: Pid, streams: Streams, story: Option<Story>) -> Self {
        let (pipes, master) = match streams {
            Streams::Pipes(stdin, stdout, stderr) => ((stdin, stdout, stderr), None),
            Streams::Terminal(master) => ((None, None, None), Some(master)),
        };
        let control = Arc::new(Control { pid, ended: AtomicBool::new(false), master });
        Self { child, control, pipes, story }
    }

    pub(super) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }
}

impl Control {
    /// To the foreground of a terminal, else to the whole session's first group.
    pub(super) fn signal(&self, signal: Signal) {
        if self.ended.load(Ordering::Relaxed) || self.pid.as_raw() <= 1 {
            return;
        }
        let group = self.master.as_ref().and_then(Master::foreground).unwrap_or(self.pid);
        let _ = kill(Pid::from_raw(-group.as_raw()), signal);
    }

    pub(super) fn resize(&self, size: Winsize) {
        if let Some(master) = &self.master {
            master.resize(size);
        }
    }

    fn kill(&self) {
        if !self.ended.load(Ordering::Relaxed) && self.pid.as_raw() > 1 {
            let _ = kill(Pid::from_raw(-self.pid.as_raw()), Signal::SIGKILL);
        }
    }
}

/// Runs as a task of its own, to the command's end.
///
/// One loop over all that can happen, because their order is free: output may end long before
/// the command or after it, and the client may leave at any time.
pub(super) async fn supervise(running: Running, input: Backlog, outlet: Outlet) {
    let Running { mut child, control, pipes: (stdin, stdout, stderr), story } = running;
    let Outlet { sink, activity, mut open } = outlet;
    let tap = Tap {
        sink: &sink,
        activity: &activity,
        sent: AtomicU64::new(0),
        sending: AtomicBool::new(false),
    };
    let (output, feed) =
        (copy_all(&control, stdout, stderr, &tap, open.clone()), feed(&control, stdin, &input));
    tokio::pin!(output, feed);
    let (mut exit, mut output_ended, mut deadline) = (None, false, None);
    while exit.is_none() || !(output_ended || deadline.is_some()) {
        tokio::select! {
            ended = child.wait(), if exit.is_none() => {
                control.ended.store(true, Ordering::Relaxed);
                exit = Some(ended);
            }
            () = &mut output, if !output_ended => output_ended = true,
            () = tap.quiet(), if exit.is_some() && control.master.is_some() => output_ended = true,
            () = &mut feed => {}
            _ = open.changed(), if deadline.is_none() => {
                control.signal(Signal::SIGHUP);
                deadline = Some(tokio::time::Instant::now() + HANG_UP_GRACE);
            }
            () = until(deadline), if deadline.is_some() && exit.is_none() => {
                control.kill();
                // It is dying; ask again only if it takes long.
                deadline = Some(tokio::time::Instant::now() + HANG_UP_GRACE);
            }
        }
    }
    input.abandon();
    match (exit, deadline) {
        (Some(exit), None) => finish(exit, &sink, story.as_ref()).await,
        _ => story.iter().for_each(|story| story.end("was hung up")),
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

/// Tells the client of a program that never ran.
pub(super) async fn refuse(failure: Failure, outlet: Outlet) {
    let message = format!("banger-agent: {}\n", failure.message);
    let tell = async {
        outlet.sink.data(Bytes::from(message), Stream::Err).await;
        outlet.sink.exited(failure.status).await;
        outlet.sink.close().await;
    };
    let mut open = outlet.open;
    tokio::select! {
        () = tell => {}
        _ = open.changed() => {}
    }
}

async fn finish(exit: io::Result<ExitStatus>, sink: &Sink, story: Option<&Story>) {
    let how = match exit.as_ref().map(|exit| (exit.code(), exit.signal())) {
        Ok((Some(code), _)) => {
            sink.exited(u32::from_ne_bytes(code.to_ne_bytes())).await;
            format!("exited {code}")
        }
        Ok((None, Some(signal))) => {
            let core = exit.as_ref().is_ok_and(ExitStatusExt::core_dumped);
            sink.died(signal, core).await;
            format!("died of signal {signal}")
        }
        Ok((None, None)) | Err(_) => {
            sink.exited(255).await;
            "was lost".to_owned()
        }
    };
    sink.close().await;
    // After the client has its answer, for a line on a serial port takes time.
    if let Some(story) = story {
        story.end(&how);
    }
}

/// Where output goes, and whether it flows.
struct Tap<'a> {
    sink: &'a Sink,
    activity: &'a Notify,
    sent: AtomicU64,
    sending: AtomicBool,
}

impl Tap<'_> {
    /// Waits for as long as the client takes; false if it is gone.
    async fn send(&self, data: Bytes, stream: Stream, open: &mut watch::Receiver<()>) -> bool {
        self.activity.notify_one();
        self.sending.store(true, Ordering::Relaxed);
        let sent = tokio::select! {
            sent = self.sink.data(data, stream) => sent,
            _ = open.changed() => false,
        };
        self.sending.store(false, Ordering::Relaxed);
        self.sent.fetch_add(1, Ordering::Relaxed);
        sent
    }

    /// Until nothing has come for a moment.
    ///
    /// A terminal whose shell has exited does not always end: what the shell left in the
    /// background may hold it open, though it cannot write any more.
    async fn quiet(&self) {
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            tokio::time::sleep(QUIET).await;
            if !self.sending.load(Ordering::Relaxed) && self.sent.load(Ordering::Relaxed) == before
            {
                return;
            }
        }
    }
}

async fn copy_all(
    control: &Control,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    tap: &Tap<'_>,
    open: watch::Receiver<()>,
) {
    match &control.master {
        Some(master) => copy_terminal(master, tap, open).await,
        None => {
            tokio::join!(
                copy_pipe(stdout, Stream::Out, tap, open.clone()),
                copy_pipe(stderr, Stream::Err, tap, open)
            );
        }
    }
}

/// To the end of the stream. When the client is gone it is still read, to nowhere: a command
/// that handles the hang-up must not die of a closed pipe instead.
async fn copy_pipe(
    from: Option<impl AsyncRead + Unpin>,
    stream: Stream,
    tap: &Tap<'_>,
    mut open: watch::Receiver<()>,
) {
    let Some(mut from) = from else {
        return;
    };
    let mut taken = true;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) if taken => taken = tap.send(buffer.split().freeze(), stream, &mut open).await,
            Ok(_) => buffer.clear(),
        }
    }
}

async fn copy_terminal(master: &Master, tap: &Tap<'_>, mut open: watch::Receiver<()>) {
    let mut buffer = vec![0; CHUNK];
    let mut taken = true;
    // An error is how Linux tells that the last process has closed the terminal.
    while let Ok(length @ 1..) = master.read(&mut buffer).await {
        if taken {
            let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            taken = tap.send(data, Stream::Out, &mut open).await;
        }
    }
}

/// Never ends: a command may outlive its input.
async fn feed(control: &Control, stdin: Option<ChildStdin>, input: &Backlog) {
    match (&control.master, stdin) {
        (Some(master), _) => feed_terminal(input, master).await,
        (None, Some(stdin)) => feed_pipe(input, stdin).await,
        (None, None) => {}
    }
    // Nobody reads any more; what still comes must not hold the client up.
    input.abandon();
    std::future::pending().await
}

/// To the client's end of file, which closes the pipe, or until the command reads no more.
async fn feed_pipe(input: &Backlog, mut stdin: ChildStdin) {
    while let Some(data) = input.next().await {
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
}

/// The end of file changes nothing: a terminal has none but the character typed.
async fn feed_terminal(input: &Backlog, master: &Master) {
    while let Some(data) = input.next().await {
        if master.write_all(&data).await.is_err() {
            return;
        }
    }
}
