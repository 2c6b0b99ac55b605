//! Frames on a Unix socket: u32 LE length, then one encoded value.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::codec::{self, CodecError, Decode, Encode, MAX_BYTES};
use super::hello::{self, Hello, HelloError, Protocol};

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the connection ended")]
    Closed,
    #[error("the connection ended before anything was said")]
    Silent,
    #[error("no {what} within {limit:?}")]
    Late { what: &'static str, limit: Duration },
    #[error("read or write a frame")]
    Io(#[source] io::Error),
    #[error("a frame that makes no sense")]
    Codec(#[source] CodecError),
    #[error(transparent)]
    Hello(HelloError),
}

/// A connection past its greeting.
#[derive(Debug)]
pub struct Frames {
    inner: Framed<UnixStream, LengthDelimitedCodec>,
    /// The protocol version that both sides chose.
    pub version: u16,
}

impl Frames {
    /// The client's half of the greeting.
    pub async fn connect(
        mut stream: UnixStream,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<Self, FrameError> {
        let greet = async {
            stream.write_all(&protocol.greeting().encode()).await.map_err(FrameError::Io)?;
            let mut bytes = [0; hello::BYTES];
            stream.read_exact(&mut bytes).await.map_err(closed)?;
            protocol.accept(&Hello::decode(&bytes)).map_err(FrameError::Hello)
        };
        let version = within("greeting", limit, greet).await?;
        Ok(Self { inner: framed(stream), version })
    }

    /// The server's half. A refused client is told both versions before the connection ends; one
    /// that leaves without a word is [`FrameError::Silent`].
    pub async fn accept(
        mut stream: UnixStream,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<Self, FrameError> {
        let greet = async {
            let mut bytes = [0; hello::BYTES];
            let first = stream.read(&mut bytes).await.map_err(FrameError::Io)?;
            if first == 0 {
                return Err(FrameError::Silent);
            }
            stream.read_exact(&mut bytes[first..]).await.map_err(closed)?;
            let (answer, chosen) = protocol.answer(&Hello::decode(&bytes));
            stream.write_all(&answer.encode()).await.map_err(FrameError::Io)?;
            chosen.map_err(FrameError::Hello)
        };
        let version = within("greeting", limit, greet).await?;
        Ok(Self { inner: framed(stream), version })
    }

    pub async fn send<T: Encode>(&mut self, value: &T) -> Result<(), FrameError> {
        let bytes = codec::encode(value).map_err(FrameError::Codec)?;
        self.inner.send(Bytes::from(bytes)).await.map_err(FrameError::Io)
    }

    /// `None` when the other side has closed between two frames. Cancel-safe.
    pub async fn receive<T: Decode<()>>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(frame) = self.inner.next().await else { return Ok(None) };
        let frame = frame.map_err(FrameError::Io)?;
        codec::decode(&frame).map(Some).map_err(FrameError::Codec)
    }

    /// Like `receive`, but the first byte of the frame may take its time and the rest may not: a
    /// client may sit idle, but not in the middle of a frame.
    pub async fn receive_within<T: Decode<()>>(
        &mut self,
        limit: Duration,
    ) -> Result<Option<T>, FrameError> {
        if self.inner.read_buffer().is_empty() {
            arrival(self.inner.get_ref()).await.map_err(FrameError::Io)?;
        }
        within("whole frame", limit, self.receive()).await
    }

    /// Lowers the longest frame that is accepted.
    #[must_use]
    pub fn limited(mut self, max_bytes: usize) -> Self {
        self.inner.codec_mut().set_max_frame_length(max_bytes.min(MAX_BYTES));
        self
    }

    /// The stream itself, to learn whether the other side has gone.
    #[must_use]
    pub fn get_ref(&self) -> &UnixStream {
        self.inner.get_ref()
    }
}

/// Ends when there is something to read, be it the end. It looks without taking, because a socket
/// counts as readable until a read has found it empty.
async fn arrival(stream: &UnixStream) -> io::Result<()> {
    use rustix::net::{RecvFlags, recv};
    loop {
        stream.readable().await?;
        let peeked = stream.try_io(tokio::io::Interest::READABLE, || {
            recv(stream, &mut [0_u8; 1], RecvFlags::PEEK).map_err(io::Error::from)
        });
        match peeked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.map(drop),
        }
    }
}

fn framed(stream: UnixStream) -> Framed<UnixStream, LengthDelimitedCodec> {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_length(4)
        .max_frame_length(MAX_BYTES)
        .new_framed(stream)
}

fn closed(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Closed,
        _ => FrameError::Io(error),
    }
}

async fn within<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, FrameError>>,
) -> Result<T, FrameError> {
    let late = FrameError::Late { what, limit };
    tokio::time::timeout(limit, work).await.unwrap_or(Err(late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hello::DAEMON;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn pair() -> (Frames, Frames) {
        let (client, server) = UnixStream::pair().unwrap();
        let (client, server) = tokio::join!(
            Frames::connect(client, DAEMON, LIMIT),
            Frames::accept(server, DAEMON, LIMIT)
        );
        (client.unwrap(), server.unwrap())
    }

    #[tokio::test]
    async fn values_cross() {
        let (mut client, mut server) = pair().await;
        client.send(&"hello".to_owned()).await.unwrap();
        assert_eq!(server.receive::<String>().await.unwrap().as_deref(), Some("hello"));
        drop(client);
        assert!(server.receive::<String>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn oversized_and_truncated_frames_are_errors() {
        let (client, mut server) = pair().await;
        let mut raw = client.inner.into_inner();
        raw.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        assert!(matches!(server.receive::<String>().await, Err(FrameError::Io(_))));

        let (client, mut server) = pair().await;
        let mut raw = client.inner.into_inner();
        raw.write_all(&[9, 0, 0, 0, 1]).await.unwrap();
        drop(raw);
        assert!(matches!(server.receive::<String>().await, Err(FrameError::Io(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stops_half_way_is_given_up() {
        let (client, mut server) = pair().await;
        let mut raw = client.inner.into_inner();
        raw.write_all(&[9, 0, 0, 0, 1]).await.unwrap();
        let late = server.receive_within::<String>(Duration::from_secs(1)).await;
        assert!(matches!(late, Err(FrameError::Late { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_may_take_its_time_between_frames() {
        let (mut client, mut server) = pair().await;
        client.send(&1_u32).await.unwrap();
        let limit = Duration::from_millis(10);
        assert_eq!(server.receive_within::<u32>(limit).await.unwrap(), Some(1));
        let idle = tokio::time::timeout(LIMIT, server.receive_within::<u32>(limit)).await;
        assert!(idle.is_err(), "still waiting, not given up");
        client.send(&2_u32).await.unwrap();
        assert_eq!(server.receive_within::<u32>(limit).await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn another_version_is_refused_by_both() {
        let (client, server) = UnixStream::pair().unwrap();
        let newer = Protocol { min: 7, max: 8, ..DAEMON };
        let (client, server) = tokio::join!(
            Frames::connect(client, newer, LIMIT),
            Frames::accept(server, DAEMON, LIMIT)
        );
        assert!(matches!(client, Err(FrameError::Hello(HelloError::Version { .. }))));
        assert!(matches!(server, Err(FrameError::Hello(HelloError::Version { .. }))));
    }
}
