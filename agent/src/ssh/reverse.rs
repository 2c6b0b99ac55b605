//! Connections from the guest to the client: ports that it has the guest listen on (`-R`), and its
//! keys' agent (`-A`).
//!
//! Channels that the server opens have input like others, and the same brake: what a program of the
//! guest does not read must not pile up here.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::{Gid, Uid, chown};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::account::Account;
use super::backlog::Backlog;
use super::forward::carry;
use crate::log;

/// Only root may take a port below it.
const FREE_PORTS: u16 = 1024;
/// Connections by one way at one time.
const MAX_CHANNELS: usize = 256;

/// Of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Reverse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    inputs: Mutex<HashMap<ChannelId, Backlog>>,
    ports: Mutex<HashMap<u16, AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let ports = self.ports.get_mut().unwrap_or_else(PoisonError::into_inner);
        ports.values().for_each(AbortHandle::abort);
    }
}

impl Reverse {
    /// What a channel's client sent that was not read yet; `None` if it is none of these.
    pub(super) fn held(&self, id: ChannelId) -> Option<usize> {
        self.inputs().get(&id).map(Backlog::len)
    }

    /// On this guest's own address, whatever was asked for: others are not the client's to offer to.
    /// Answers with the port, which is the guest's choice for 0.
    pub(super) async fn listen(
        &self,
        address: &str,
        port: u16,
        account: &Account,
        handle: Handle,
        activity: Arc<Notify>,
    ) -> io::Result<u16> {
        if port != 0 && port < FREE_PORTS && account.uid != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = listener.local_addr()?.port();
        let (address, weak) = (address.to_owned(), Arc::downgrade(&self.0));
        let accept = async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let Some(reverse) = weak.upgrade().map(Self) else { return };
                drop(stream.set_nodelay(true));
                let (handle, address) = (handle.clone(), address.clone());
                let activity = Arc::clone(&activity);
                tokio::spawn(async move {
                    let opened = open_for(&handle, &address, port, peer).await;
                    let (read, write) = stream.into_split();
                    reverse.carry(opened, read, write, &activity).await;
                });
            }
        };
        let task = tokio::spawn(accept).abort_handle();
        if let Some(before) = self.ports().insert(port, task) {
            before.abort();
        }
        Ok(port)
    }

    /// False if nobody listened there.
    pub(super) fn unlisten(&self, port: u16) -> bool {
        self.ports().remove(&port).map(|task| task.abort()).is_some()
    }

    /// A socket at which the client's agent answers, for as long as its channel is open.
    pub(super) fn offer_agent(
        &self,
        account: &Account,
        handle: Handle,
        activity: Arc<Notify>,
        mut open: watch::Receiver<()>,
    ) -> io::Result<PathBuf> {
        let place = AgentPlace::make(account)?;
        let path = place.0.join("agent");
        let listener = UnixListener::bind(&path)?;
        own(&path, account)?;
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let _place = place;
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = open.changed() => return,
                };
                let (Ok((stream, _)), Some(reverse)) = (stream, weak.upgrade().map(Self)) else {
                    return;
                };
                let (handle, activity) = (handle.clone(), Arc::clone(&activity));
                tokio::spawn(async move {
                    let opened = handle.channel_open_agent().await;
                    let (read, write) = stream.into_split();
                    reverse.carry(opened, read, write, &activity).await;
                });
            }
        });
        Ok(path)
    }

    async fn carry(
        &self,
        opened: Result<Channel<Msg>, russh::Error>,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
        activity: &Notify,
    ) {
        let channel = match opened {
            Ok(channel) => channel,
            Err(error) => {
                return log::debug(format_args!("the client takes no connection: {error}"));
            }
        };
        let id = channel.id();
        let (mut from, writer) = channel.split();
        let input = Backlog::default();
        if !self.admit(id, &input) {
            drop(writer.close().await);
            return;
        }
        let gone = listen(&mut from, &input);
        carry(read, write, &writer, &input, activity, gone).await;
        input.abandon();
        self.inputs().remove(&id);
        // Until the client has closed it too: what it still says has to be taken away.
        while from.wait().await.is_some() {}
    }

    fn admit(&self, id: ChannelId, input: &Backlog) -> bool {
        let mut inputs = self.inputs();
        let admitted = inputs.len() < MAX_CHANNELS;
        if admitted {
            inputs.insert(id, input.clone());
        }
        admitted
    }

    fn inputs(&self) -> MutexGuard<'_, HashMap<ChannelId, Backlog>> {
        self.0.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<u16, AbortHandle>> {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open_for(
    handle: &Handle,
    address: &str,
    port: u16,
    peer: SocketAddr,
) -> Result<Channel<Msg>, russh::Error> {
    let (from, from_port) = (peer.ip().to_string(), u32::from(peer.port()));
    handle.channel_open_forwarded_tcpip(address, u32::from(port), from, from_port).await
}

/// Ends when the channel does.
async fn listen(from: &mut ChannelReadHalf, input: &Backlog) {
    while let Some(message) = from.wait().await {
        match message {
            ChannelMsg::Data { data } => input.push(&data),
            ChannelMsg::Eof => input.end(),
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// A directory of the user's that goes with it.
#[derive(Debug)]
struct AgentPlace(PathBuf);

impl AgentPlace {
    fn make(account: &Account) -> io::Result<Self> {
        let mut name = [0_u8; 8];
        io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut name)?;
        let path = PathBuf::from(format!("/tmp/ssh-{:016x}", u64::from_ne_bytes(name)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let place = Self(path);
        own(&place.0, account)?;
        Ok(place)
    }
}

impl Drop for AgentPlace {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Where the server is not root, all is its own anyway.
fn own(path: &Path, account: &Account) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Ok(chown(path, Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(account.gid)))?)
}
