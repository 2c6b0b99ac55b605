//! Connections from the client into the guest: `-L` to a TCP address or a Unix socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use russh::server::{ChannelOpenHandle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};

use super::backlog::Backlog;
use super::resolve;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const CHUNK: usize = 32 * 1024;

#[derive(Debug)]
pub(super) enum Target {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Connects, answers the client, and carries data until both sides have ended or one is gone.
pub(super) async fn run(
    target: Target,
    reply: ChannelOpenHandle,
    writer: ChannelWriteHalf<Msg>,
    input: Backlog,
    mut open: watch::Receiver<()>,
    activity: Arc<Notify>,
) {
    let carried = async {
        match &target {
            Target::Tcp(host, port) => match in_time(tcp(host, *port)).await {
                Ok(stream) => {
                    reply.accept().await;
                    let (read, write) = stream.into_split();
                    carry(read, write, &writer, &input, &activity).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            },
            Target::Unix(path) => match in_time(UnixStream::connect(path)).await {
                Ok(stream) => {
                    reply.accept().await;
                    let (read, write) = stream.into_split();
                    carry(read, write, &writer, &input, &activity).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            },
        }
    };
    tokio::select! {
        () = carried => {}
        _ = open.changed() => {}
    }
    input.abandon();
}

async fn in_time<T>(connect: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_LIMIT, connect)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in resolve::lookup(host).await {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn carry(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    writer: &ChannelWriteHalf<Msg>,
    input: &Backlog,
    activity: &Notify,
) {
    tokio::join!(to_client(read, writer, activity), to_guest(input, write));
    drop(writer.close().await);
}

async fn to_client(
    mut read: impl AsyncRead + Unpin,
    writer: &ChannelWriteHalf<Msg>,
    activity: &Notify,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                activity.notify_one();
                if writer.data_bytes(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
    drop(writer.eof().await);
}

/// A side that reads no more still sends; only its input is dropped.
async fn to_guest(input: &Backlog, mut write: impl AsyncWrite + Unpin) {
    while let Some(data) = input.next().await {
        if write.write_all(&data).await.is_err() {
            input.abandon();
            return;
        }
    }
    drop(write.shutdown().await);
}
