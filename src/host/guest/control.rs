//! One connection to the agent's control link.
//!
//! A port is a byte stream that knows no connections: what the agent sent to a daemon that died
//! may come out first, cut anywhere. So a frame that is no frame, or that does not end, is dropped
//! and the question asked again; nothing here relies on having heard what was said before.
//!
//! A port serves one connection at a time and lets the next one wait, and so does the agent on
//! vsock; so connections are short and need no lock among us.

use std::io;
use std::time::Duration;

use banger_agent::contract::CONTRACT_VERSION;
use banger_agent::contract::control::{
    FrameError, FrameReader, GuestEvent, HostBody, HostRequest, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::line::Line;
use crate::model::OpId;

/// The VMM makes its socket a few milliseconds after its start.
const RETRY: Duration = Duration::from_millis(5);
/// A frame is written in one go; one that takes longer is the half of another.
const FRAME_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("connect to the agent's port")]
    Connect(#[source] io::Error),
    #[error("speak to the agent")]
    Io(#[source] io::Error),
    #[error("write a request to the agent")]
    Frame(#[source] FrameError),
    #[error("the VMM closed the agent's port")]
    Closed,
}

#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    frames: FrameReader,
    op: OpId,
    /// Said again when the stream had to be resynchronised, for the answer may be lost with it.
    question: HostBody,
}

impl Control {
    /// Asks `question` over a new connection.
    pub(super) async fn ask(
        line: &Line,
        op: OpId,
        question: HostBody,
    ) -> Result<Self, ControlError> {
        let stream = line.connect().await.map_err(ControlError::Connect)?;
        let mut control = Self { stream, frames: FrameReader::default(), op, question };
        control.repeat().await?;
        Ok(control)
    }

    /// Hears an agent that came by itself, to tell how its boot went.
    pub(super) fn hear(stream: UnixStream, op: OpId) -> Self {
        let question = HostBody::Hello { contract: CONTRACT_VERSION };
        Self { stream, frames: FrameReader::default(), op, question }
    }

    /// Asks the next question on the same connection.
    pub(super) async fn go_on(&mut self, question: HostBody) -> Result<(), ControlError> {
        self.question = question;
        self.repeat().await
    }

    /// The next thing the agent says.
    pub(super) async fn event(&mut self) -> Result<GuestEvent, ControlError> {
        loop {
            match self.frames.next_message() {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => self.read_more().await?,
                Err(error) => self.resynchronise(error).await?,
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), ControlError> {
        let mut bytes = [0; 4096];
        let reading = self.stream.read(&mut bytes);
        let read = if self.frames.is_partial() {
            match timeout(FRAME_LIMIT, reading).await {
                Ok(read) => read,
                Err(late) => return self.resynchronise(late).await,
            }
        } else {
            reading.await
        };
        match read {
            Ok(0) => Err(ControlError::Closed),
            Ok(n) => {
                self.frames.push(&bytes[..n]);
                Ok(())
            }
            Err(error) => Err(ControlError::Io(error)),
        }
    }

    async fn resynchronise(&mut self, why: impl std::fmt::Display) -> Result<(), ControlError> {
        tracing::debug!(op_id = %self.op, %why, "the agent's stream was cut; asking again");
        self.frames.clear();
        self.repeat().await
    }

    async fn repeat(&mut self) -> Result<(), ControlError> {
        let request = HostRequest { op_id: self.op.0, body: self.question.clone() };
        let frame = encode_frame(&request).map_err(ControlError::Frame)?;
        self.stream.write_all(&frame).await.map_err(ControlError::Io)
    }
}

/// Says hello, from the moment there is a port to say it to.
pub(super) async fn hello_when_there(line: &Line, op: OpId) -> Result<Control, ControlError> {
    use io::ErrorKind as K;
    loop {
        let hello = HostBody::Hello { contract: CONTRACT_VERSION };
        match Control::ask(line, op, hello).await {
            // Not made yet, or made and not listened on yet, or gone again at once.
            Err(ControlError::Connect(error) | ControlError::Io(error))
                if matches!(
                    error.kind(),
                    K::NotFound | K::ConnectionRefused | K::BrokenPipe | K::ConnectionReset
                ) =>
            {
                sleep(RETRY).await;
            }
            other => return other,
        }
    }
}
