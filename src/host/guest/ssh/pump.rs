//! The movements of a running program: input, controls, output. None of them reads further than
//! the other side takes, so a slow reader slows the program and nothing piles up.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Control, ExitKind, GuestError, GuestSsh};

/// One SSH packet.
const CHUNK: usize = 32 * 1024;
/// Extended data of this type is standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;
/// For the guest to read a hang-up; whether it does or not, the caller leaves.
const FAREWELL: Duration = Duration::from_secs(1);

/// Carries input until its end, and then tells the guest that it ended.
pub(super) async fn feed<I>(to: &ChannelWriteHalf<Msg>, mut stdin: I) -> io::Result<()>
where
    I: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let ended = stdin.read_buf(&mut buffer).await? == 0;
        let sent = match ended {
            true => to.eof().await,
            false => to.data_bytes(buffer.split().freeze()).await,
        };
        // A send fails when the program ended without reading on; the output tells how.
        if ended || sent.is_err() {
            return Ok(());
        }
    }
}

/// Carries controls until their sender is dropped.
pub(super) async fn steer(to: &ChannelWriteHalf<Msg>, mut controls: mpsc::Receiver<Control>) {
    while let Some(control) = controls.recv().await {
        let sent = match control {
            Control::Resize { cols, rows } => to.window_change(cols, rows, 0, 0).await,
            Control::Signal(name) => to.signal(signal(&name)).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

pub(super) struct Output<'a, O, E> {
    ssh: &'a GuestSsh,
    /// Requests that the guest has not answered yet.
    expected: VecDeque<&'static str>,
    stdout: O,
    stderr: E,
    exit: Option<ExitKind>,
}

impl<'a, O, E> Output<'a, O, E>
where
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    pub(super) fn new(
        ssh: &'a GuestSsh,
        expected: Vec<&'static str>,
        stdout: O,
        stderr: E,
    ) -> Self {
        Self { ssh, expected: expected.into(), stdout, stderr, exit: None }
    }

    /// Writes what comes until the guest closes the channel.
    pub(super) async fn collect(
        &mut self,
        from: &mut ChannelReadHalf,
    ) -> Result<ExitKind, GuestError> {
        loop {
            // Flushed when nothing more is at hand: at once for one line, not for each packet of
            // a long output.
            let message = match from.wait().now_or_never() {
                Some(message) => message,
                None => {
                    self.flush().await?;
                    from.wait().await
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => written(self.stdout.write_all(&data).await)?,
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                    written(self.stderr.write_all(&data).await)?;
                }
                Some(ChannelMsg::Success) => drop(self.expected.pop_front()),
                Some(ChannelMsg::Failure) => {
                    if let Some(what) = self.expected.pop_front() {
                        return Err(GuestError::RequestRefused { what });
                    }
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    // POSIX passes the low eight bits only.
                    self.exit = Some(ExitKind::Code(exit_status.to_le_bytes()[0]));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    self.exit = Some(ExitKind::Signal(name(signal_name)));
                }
                Some(ChannelMsg::Close) => break,
                Some(_) => {}
                // The connection is gone; with the program's end known, nothing is lost.
                None if self.exit.is_some() => break,
                None => return Err(self.ssh.lost("the program ran", None)),
            }
        }
        self.flush().await?;
        self.exit.take().ok_or_else(|| self.ssh.lost("the program ended, without its status", None))
    }

    async fn flush(&mut self) -> Result<(), GuestError> {
        written(self.stdout.flush().await)?;
        written(self.stderr.flush().await)
    }

    /// Closes the channel, by which the guest ends the program, and stays until the guest has
    /// read that, so that the caller may end its process at once.
    pub(super) async fn hang_up(&self, to: &ChannelWriteHalf<Msg>, from: &mut ChannelReadHalf) {
        if to.close().await.is_err() {
            return;
        }
        let heard = async {
            tokio::select! {
                // Answered in order: after the close. An error is a connection that is gone.
                _ = self.ssh.handle.0.send_ping() => {}
                // What is still coming must be taken away, or nothing else gets through.
                () = async { while from.wait().await.is_some() {} } => {}
            }
        };
        if timeout(FAREWELL, heard).await.is_err() {
            tracing::debug!("the guest did not confirm the hang-up");
        }
    }
}

fn written(result: io::Result<()>) -> Result<(), GuestError> {
    result.map_err(GuestError::writing)
}

fn signal(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_owned()),
    }
}

fn name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        known => format!("{known:?}"),
    }
}
