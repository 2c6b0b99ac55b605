//! The connection: one key exchange, one authentication, then channels.
//!
//! Speed counts more than choice here: a command in a guest costs a whole connection, and the
//! other side may run on an emulated processor. So only the cheapest algorithms are offered.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Config, Handle, Handler, Msg, connect_stream};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{Channel, ChannelOpenFailure, Preferred, SshId, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::super::line::connect_vsock;
use super::incoming::{FromGuest, FromGuests, Incoming, ToTaker, taker};
use super::{GuestError, SshEndpoint, SshTarget};

/// A guest that dies says nothing; its connection is given up after five of these. An emulated one
/// on a busy host may well be silent for some seconds.
const KEEPALIVE: Duration = Duration::from_secs(5);
const MISSES: usize = 4;

/// An authenticated connection to one guest. Dropping the last of its copies ends whatever runs over it.
#[derive(Clone, Debug)]
pub struct GuestSsh {
    pub(super) handle: Session,
    pub(super) target: String,
}

/// russh's handle has no Debug of its own.
#[derive(Clone)]
pub(super) struct Session(pub(super) Arc<Handle<Pinned>>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("closed", &self.0.is_closed()).finish()
    }
}

/// Accepts one host key and no other.
pub(super) struct Pinned {
    key: PublicKey,
    mismatch: Arc<AtomicBool>,
    incoming: ToTaker,
}

impl Pinned {
    /// Nobody is kept waiting: what cannot be taken at once is refused.
    async fn offer(&self, what: Incoming, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        match self.incoming.try_reserve() {
            Ok(place) => {
                reply.accept().await;
                place.send(FromGuest::new(what, channel));
            }
            Err(_) => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        }
    }
}

impl Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let same = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.key.key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        };
        self.mismatch.store(!same, Ordering::Relaxed);
        Ok(same)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut russh::client::Session,
    ) -> Result<(), russh::Error> {
        self.offer(Incoming::Port(port), channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut russh::client::Session,
    ) -> Result<(), russh::Error> {
        self.offer(Incoming::Agent, channel, reply).await;
        Ok(())
    }
}

impl GuestSsh {
    /// `limit` is for everything up to the end of authentication. Whatever the guest would open is
    /// refused.
    pub async fn connect(endpoint: &SshEndpoint, limit: Duration) -> Result<Self, GuestError> {
        Ok(Self::connect_both_ways(endpoint, limit).await?.0)
    }

    /// With what the guest opens, for as long as that is not dropped.
    pub async fn connect_both_ways(
        endpoint: &SshEndpoint,
        limit: Duration,
    ) -> Result<(Self, FromGuests), GuestError> {
        let (incoming, from_guest) = taker();
        match timeout(limit, open(endpoint, incoming)).await {
            Ok(connected) => connected.map(|ssh| (ssh, from_guest)),
            Err(_) => Err(GuestError::Unreachable {
                target: endpoint.target.to_string(),
                source: io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {} ms", limit.as_millis()),
                ),
            }),
        }
    }

    /// A connection that the guest makes to `host:port`, as it sees that name.
    pub async fn direct_tcpip(
        &self,
        host: &str,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, GuestError> {
        let opening =
            self.handle.0.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let channel =
            opening.await.map_err(|error| self.refused(format!("{host}:{port}"), error))?;
        Ok(channel.into_stream())
    }

    pub(super) fn refused(&self, what: impl Into<String>, source: russh::Error) -> GuestError {
        match source {
            russh::Error::ChannelOpenFailure(_) => {
                GuestError::ChannelRefused { what: what.into(), source }
            }
            _ => self.lost("opening a channel", Some(source)),
        }
    }

    pub(super) fn lost(&self, during: &'static str, source: Option<russh::Error>) -> GuestError {
        GuestError::Lost { target: self.target.clone(), during, source }
    }
}

async fn open(endpoint: &SshEndpoint, incoming: ToTaker) -> Result<GuestSsh, GuestError> {
    let target = endpoint.target.to_string();
    let unusable = |what| {
        let target = target.clone();
        move |source| GuestError::Endpoint { target, what, source }
    };
    let host_key = PublicKey::from_openssh(&endpoint.host_key).map_err(unusable("host key"))?;
    let client_key =
        PrivateKey::from_openssh(&endpoint.client_private).map_err(unusable("client key"))?;

    let unreachable = |source| GuestError::Unreachable { target: target.clone(), source };
    let mut handle = match reach(&endpoint.target).await.map_err(unreachable)? {
        Reached::Tcp(stream) => handshake(stream, host_key, incoming, &target).await?,
        Reached::Unix(stream) => handshake(stream, host_key, incoming, &target).await?,
    };

    let key = PrivateKeyWithHashAlg::new(Arc::new(client_key), None);
    let answer = handle.authenticate_publickey(&endpoint.user, key).await;
    match answer {
        Ok(result) if result.success() => {
            Ok(GuestSsh { handle: Session(Arc::new(handle)), target })
        }
        // russh reports a connection that ended as a refusal.
        Ok(_) if handle.is_closed() => {
            Err(GuestError::Lost { target, during: "authenticating", source: None })
        }
        Ok(_) => Err(GuestError::AuthRefused { target, user: endpoint.user.clone() }),
        Err(source) => {
            Err(GuestError::Lost { target, during: "authenticating", source: Some(source) })
        }
    }
}

/// A connection to the guest's server on which nothing was said yet; it blocks.
pub async fn stream(target: &SshTarget, limit: Duration) -> Result<OwnedFd, GuestError> {
    let reached = async {
        Ok(match reach(target).await? {
            Reached::Tcp(stream) => blocking(stream.into_std()?.into())?,
            Reached::Unix(stream) => blocking(stream.into_std()?.into())?,
        })
    };
    let reached = timeout(limit, reached).await;
    reached
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(|source| GuestError::Unreachable { target: target.to_string(), source })
}

fn blocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, false)?;
    Ok(fd)
}

enum Reached {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn reach(target: &SshTarget) -> io::Result<Reached> {
    Ok(match target {
        SshTarget::Tcp(address) => {
            let stream = dial(*address).await?;
            stream.set_nodelay(true)?;
            Reached::Tcp(stream)
        }
        SshTarget::Unix(path) => Reached::Unix(UnixStream::connect(path).await?),
        SshTarget::Vsock(socket, port) => Reached::Unix(connect_vsock(socket, *port).await?),
    })
}

/// Tries twice where the first answer may be old: a packet that was sent to the guest before it was
/// up (the rest of a connection to its last boot, say) makes the kernel look for its hardware
/// address, and when that search ends in vain it takes along whoever joined late.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    match TcpStream::connect(address).await {
        Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {
            TcpStream::connect(address).await
        }
        connected => connected,
    }
}

async fn handshake<S>(
    stream: S,
    host_key: PublicKey,
    incoming: ToTaker,
    target: &str,
) -> Result<Handle<Pinned>, GuestError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mismatch = Arc::new(AtomicBool::new(false));
    let pinned = Pinned { key: host_key, mismatch: Arc::clone(&mismatch), incoming };
    connect_stream(Arc::new(config()), stream, pinned).await.map_err(|source| {
        let target = target.to_owned();
        if mismatch.load(Ordering::Relaxed) {
            GuestError::HostKeyMismatch { target }
        } else {
            GuestError::Handshake { target, source }
        }
    })
}

fn config() -> Config {
    Config {
        client_id: SshId::Standard(concat!("SSH-2.0-banger_", env!("CARGO_PKG_VERSION")).into()),
        preferred: Preferred {
            // The link never leaves this host: no need for a post-quantum exchange.
            kex: vec![
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_CLIENT,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            ]
            .into(),
            key: vec![Algorithm::Ed25519].into(),
            // Processors have instructions for AES, and their emulators too.
            cipher: vec![cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]
                .into(),
            mac: vec![mac::HMAC_SHA256_ETM, mac::HMAC_SHA256].into(),
            compression: vec![compression::NONE].into(),
            ..Preferred::default()
        },
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: MISSES,
        inactivity_timeout: None,
        nodelay: true,
        // The window stays as it is: larger ones are slower with this crate.
        ..Config::default()
    }
}
