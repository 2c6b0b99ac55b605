//! Accepting: SSH on TCP and on vsock, and the lane's clients, each in a task of its own.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Config, run_stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio_vsock::{VMADDR_CID_HOST, VsockListener, VsockStream};

use super::lane::{self, Greeted};
use super::session::{Connection, Guest};
use super::sessions::Sessions;
use crate::error::{Chain, Result};
use crate::log;

/// A connection that has not proved a key by then is closed.
const LOGIN_GRACE: Duration = Duration::from_secs(60);
/// After an accept that failed (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients come in; those of vsock are there if the machine has it.
pub(super) struct Doors {
    pub(super) tcp: Option<TcpListener>,
    pub(super) vsock: Option<VsockListener>,
    pub(super) lane: Option<VsockListener>,
}

/// What every connection is given.
#[derive(Clone)]
pub(super) struct House {
    pub(super) ssh: Arc<Config>,
    pub(super) guest: Arc<Guest>,
    pub(super) sessions: Sessions,
}

/// Runs for as long as the machine. `serving` is called once connections are taken.
pub(super) async fn accept(doors: Doors, house: House, serving: impl FnOnce()) -> Result<()> {
    if let Some(port) = lane::open() {
        tokio::spawn(accept_port(port, Arc::clone(&house.guest)));
    }
    serving();
    if let Some(listener) = doors.vsock {
        let house = house.clone();
        tokio::spawn(accept_vsock(listener, move |stream, _| {
            drop(tokio::spawn(connection(stream, house.clone())));
        }));
    }
    if let Some(listener) = doors.lane {
        let house = house.clone();
        tokio::spawn(accept_vsock(listener, move |stream, cid| match cid {
            VMADDR_CID_HOST => drop(tokio::spawn(lane_client(stream, house.clone()))),
            // A process of this very machine: it has its own ways to run programs, not as root.
            _ => log::line("lane: a stranger was turned away"),
        }));
    }
    match doors.tcp {
        Some(listener) => accept_tcp(listener, house).await,
        None => std::future::pending().await,
    }
}

async fn accept_tcp(listener: TcpListener, house: House) -> Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                drop(stream.set_nodelay(true));
                tokio::spawn(connection(stream, house.clone()));
            }
            Err(error) => {
                log::line(format_args!("accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// `take` is told the peer's CID, which the kernel says and nobody can choose.
async fn accept_vsock(listener: VsockListener, take: impl Fn(VsockStream, u32)) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => take(stream, peer.cid()),
            Err(error) => {
                log::line(format_args!("accept a vsock connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_port(mut clients: Receiver<Greeted>, guest: Arc<Guest>) {
    while let Some(client) = clients.recv().await {
        match client.enter() {
            Ok(stream) => lane::serve(stream, &guest).await,
            Err(error) => log::line(format_args!("lane: {error}")),
        }
    }
}

async fn lane_client(stream: VsockStream, house: House) {
    let mut end = house.sessions.enter(&stream);
    let mut served = std::pin::pin!(lane::greet(stream, &house.guest));
    loop {
        tokio::select! {
            () = &mut served => return,
            () = end.cut() => {}
        }
    }
}

async fn connection<S>(stream: S, house: House)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    let House { ssh, guest, sessions } = house;
    let mut end = sessions.enter(&stream);
    let handler = Connection::new(guest);
    let authenticated = handler.authenticated();
    let started = tokio::time::timeout(LOGIN_GRACE, run_stream(ssh, stream, handler)).await;
    let Ok(Ok(session)) = started else {
        return; // It spoke no SSH.
    };
    let handle = session.handle();
    tokio::pin!(session);
    let mut grace = std::pin::pin!(tokio::time::sleep(LOGIN_GRACE));
    let ended = loop {
        tokio::select! {
            ended = &mut session => break ended,
            () = end.cut() => {}
            () = &mut grace, if !grace.is_elapsed() => {
                if !authenticated.load(std::sync::atomic::Ordering::Relaxed) {
                    let why = "login takes too long".into();
                    drop(handle.disconnect(Disconnect::ByApplication, why, String::new()).await);
                }
            }
        }
    };
    if let Err(error) = ended {
        log::debug(format_args!("connection: {}", Chain(&error)));
    }
}
