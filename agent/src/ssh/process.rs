//! A command's life: its output goes to the client as fast as the client takes it, its input
//! comes from the backlog, and its end is told. When the client leaves first, the command is
//! hung up, and killed if that does not end it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nix::pty::Winsize;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use russh::ChannelWriteHalf;
use russh::server::{Handle, Msg};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{Notify, watch};

use super::backlog::Backlog;
use super::exec::Failure;
use super::pty::Master;
use super::signals;
use crate::log::{self, Op};

/// One packet of the default size.
const CHUNK: usize = 32 * 1024;
const STDERR: u32 = 1;
/// Between the hang-up and the kill.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);

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
    pub(super) writer: ChannelWriteHalf<Msg>,
    pub(super) handle: Handle,
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
pub(super) async fn supervise(running: Running, input: Backlog, outlet: Outlet) {
    let Running { mut child, control, pipes: (stdin, stdout, stderr), story } = running;
    let Outlet { writer, handle, activity, mut open } = outlet;
    let ended = {
        let exit = async {
            let exit = child.wait().await;
            control.ended.store(true, Ordering::Relaxed);
            exit
        };
        let output = async {
            match &control.master {
                Some(master) => copy_terminal(master, &writer, &activity).await,
                None => {
                    tokio::join!(
                        copy_out(stdout, None, &writer, &activity),
                        copy_out(stderr, Some(STDERR), &writer, &activity)
                    );
                }
            }
        };
        let feed = async {
            match (&control.master, stdin) {
                (Some(master), _) => feed_terminal(&input, master).await,
                (None, Some(stdin)) => feed_pipe(&input, stdin).await,
                (None, None) => {}
            }
            input.abandon();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            (exit, ()) = async { tokio::join!(exit, output) } => Some(exit),
            () = feed => None,
            _ = open.changed() => None,
        }
    };
    input.abandon();
    match ended {
        Some(exit) => finish(exit, &writer, &handle, story.as_ref()).await,
        None => hang_up(child, control, story.as_ref()).await,
    }
}

/// Tells the client of a program that never ran.
pub(super) async fn refuse(failure: Failure, outlet: Outlet) {
    let message = format!("banger-agent: {}\n", failure.message);
    let tell = async {
        drop(outlet.writer.extended_data_bytes(STDERR, Bytes::from(message)).await);
        drop(outlet.writer.exit_status(failure.status).await);
        drop(outlet.writer.eof().await);
        drop(outlet.writer.close().await);
    };
    let mut open = outlet.open;
    tokio::select! {
        () = tell => {}
        _ = open.changed() => {}
    }
}

async fn finish(
    exit: io::Result<ExitStatus>,
    writer: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    story: Option<&Story>,
) {
    let how = match exit.as_ref().map(|exit| (exit.code(), exit.signal())) {
        Ok((Some(code), _)) => {
            drop(writer.exit_status(u32::from_ne_bytes(code.to_ne_bytes())).await);
            format!("exited {code}")
        }
        Ok((None, Some(signal))) => {
            let core = exit.as_ref().is_ok_and(ExitStatusExt::core_dumped);
            let name = signals::to_ssh(signal);
            let _ = handle
                .exit_signal_request(writer.id(), name, core, String::new(), String::new())
                .await;
            format!("died of signal {signal}")
        }
        Ok((None, None)) | Err(_) => {
            drop(writer.exit_status(255).await);
            "was lost".to_owned()
        }
    };
    drop(writer.eof().await);
    drop(writer.close().await);
    // After the client has its answer, for a line on a serial port takes time.
    if let Some(story) = story {
        story.end(&how);
    }
}

/// The client is gone. Closing the terminal hangs it up too.
async fn hang_up(mut child: Child, control: Arc<Control>, story: Option<&Story>) {
    control.signal(Signal::SIGHUP);
    let ended = tokio::time::timeout(HANG_UP_GRACE, child.wait()).await;
    if ended.is_err() {
        control.kill();
        drop(child.wait().await);
    }
    if let Some(story) = story {
        story.end("was hung up");
    }
}

/// To the end of the stream. A client that is gone is the task's matter, not this one's.
async fn copy_out(
    from: Option<impl AsyncRead + Unpin>,
    kind: Option<u32>,
    writer: &ChannelWriteHalf<Msg>,
    activity: &Notify,
) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => send(buffer.split().freeze(), kind, writer, activity).await,
        }
    }
}

async fn copy_terminal(master: &Master, writer: &ChannelWriteHalf<Msg>, activity: &Notify) {
    let mut buffer = vec![0; CHUNK];
    // An error is how Linux tells that the last process has closed the terminal.
    while let Ok(length) = master.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        send(data, None, writer, activity).await;
    }
}

async fn send(data: Bytes, kind: Option<u32>, writer: &ChannelWriteHalf<Msg>, activity: &Notify) {
    activity.notify_one();
    let sent = match kind {
        None => writer.data_bytes(data).await,
        Some(kind) => writer.extended_data_bytes(kind, data).await,
    };
    // It fails only when the connection is gone, and then the task ends.
    drop(sent);
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
    std::future::pending().await
}
