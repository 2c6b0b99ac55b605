//! The client's end of a running program: a channel of SSH, or the lane.

use banger_agent::contract::lane::{self, GuestKind};
use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::server::{Handle, Msg};
use tokio::sync::mpsc;

use super::signals;

/// Extended data of this type is standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;

pub(super) enum Sink {
    Channel {
        writer: ChannelWriteHalf<Msg>,
        handle: Handle,
    },
    /// Frames, to the task that writes them.
    Lane(mpsc::Sender<Vec<u8>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Sink {
    /// Waits for as long as the client takes; false if it is gone.
    pub(super) async fn data(&self, data: Bytes, stream: Stream) -> bool {
        match (self, stream) {
            (Self::Channel { writer, .. }, Stream::Out) => writer.data_bytes(data).await.is_ok(),
            (Self::Channel { writer, .. }, Stream::Err) => {
                writer.extended_data_bytes(STDERR, data).await.is_ok()
            }
            (Self::Lane(frames), Stream::Out) => say(frames, GuestKind::Out, &data).await,
            (Self::Lane(frames), Stream::Err) => say(frames, GuestKind::Err, &data).await,
        }
    }

    pub(super) async fn exited(&self, status: u32) {
        match self {
            Self::Channel { writer, .. } => drop(writer.exit_status(status).await),
            Self::Lane(frames) => {
                say(frames, GuestKind::Exit, &status.to_le_bytes()).await;
            }
        }
    }

    pub(super) async fn died(&self, signal: i32, core: bool) {
        let name = signals::to_ssh(signal);
        match self {
            Self::Channel { writer, handle } => {
                let told = handle.exit_signal_request(
                    writer.id(),
                    name,
                    core,
                    String::new(),
                    String::new(),
                );
                let _ = told.await;
            }
            Self::Lane(frames) => {
                say(frames, GuestKind::Died, signals::name(&name).as_bytes()).await;
            }
        }
    }

    /// After the last word.
    pub(super) async fn close(&self) {
        if let Self::Channel { writer, .. } = self {
            drop(writer.eof().await);
            drop(writer.close().await);
        }
    }
}

async fn say(frames: &mpsc::Sender<Vec<u8>>, kind: GuestKind, payload: &[u8]) -> bool {
    match lane::frame(kind, payload) {
        Ok(frame) => frames.send(frame).await.is_ok(),
        Err(_) => false,
    }
}
