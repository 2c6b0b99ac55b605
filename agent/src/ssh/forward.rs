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
/// For what a client had sent before it went, to be taken.
const LAST_LIMIT: Duration = Duration::from_secs(30);
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
    open: watch::Receiver<()>,
    activity: Arc<Notify>,
) {
    let gone = || client_gone(open.clone());
    match &target {
        Target::Tcp(host, port) => match Box::pin(or_gone(in_time(tcp(host, *port)), gone())).await
        {
            Ok(stream) => {
                reply.accept().await;
                let (read, write) = stream.into_split();
                carry(read, write, &writer, &input, &activity, gone()).await;
            }
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        },
        Target::Unix(path) => match or_gone(in_time(UnixStream::connect(path)), gone()).await {
            Ok(stream) => {
                reply.accept().await;
                let (read, write) = stream.into_split();
                carry(read, write, &writer, &input, &activity, gone()).await;
            }
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        },
    }
    input.abandon();
}

async fn client_gone(mut open: watch::Receiver<()>) {
    drop(open.changed().await);
}

async fn or_gone<T>(
    connect: impl Future<Output = io::Result<T>>,
    gone: impl Future<Output = ()>,
) -> io::Result<T> {
    tokio::select! {
        connected = connect => connected,
        () = gone => Err(io::ErrorKind::ConnectionAborted.into()),
    }
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

/// Until both sides have ended, or the client is gone and all that it had sent is delivered.
pub(super) async fn carry(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    writer: &ChannelWriteHalf<Msg>,
    input: &Backlog,
    activity: &Notify,
    gone: impl Future<Output = ()>,
) {
    let delivered = Notify::new();
    let deliver = async {
        to_guest(input, write).await;
        delivered.notify_one();
    };
    let both = async { tokio::join!(to_client(read, writer, activity), deliver) };
    let last = async {
        gone.await;
        input.end();
        drop(tokio::time::timeout(LAST_LIMIT, delivered.notified()).await);
    };
    tokio::select! {
        _ = both => drop(writer.close().await),
        () = last => {}
    }
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
