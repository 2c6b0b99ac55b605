//! Listening and accepting: on TCP, on vsock, and on the lane.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use banger_agent::contract::VSOCK_SSH_PORT;
use banger_agent::contract::config::GuestConfig;
use russh::keys::PrivateKey;
use russh::server::{Config, run_stream};
use russh::{Disconnect, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use super::auth::Keys;
use super::lane::{self, Greeted};
use super::session::{Connection, Guest};
use super::sessions::Sessions;
use crate::error::{AgentError, Chain, Context as _, Result};
use crate::log;

/// A connection that has not proved a key by then is closed.
const LOGIN_GRACE: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// After an accept that failed (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What makes a server one guest's: its host key, who may come in, what programs are given.
pub(crate) struct Who {
    ssh: Arc<Config>,
    guest: Arc<Guest>,
}

impl Who {
    pub(crate) fn of(config: &GuestConfig) -> Result<Self> {
        let host_key = PrivateKey::from_openssh(&config.host_key)
            .map_err(|error| AgentError::Ssh { what: "read the host key", source: error.into() })?;
        let keys = Keys::parse(&config.authorized_keys)?;
        let guest = Guest { keys, env: config.env.clone() };
        Ok(Self { ssh: Arc::new(settings(host_key)), guest: Arc::new(guest) })
    }
}

/// A server that is told later whose it is.
pub(crate) struct Blank(oneshot::Sender<(Who, mpsc::Sender<()>)>);

impl Blank {
    /// Returns when connections are taken; false if the server has ended.
    pub(crate) fn serve_as(self, who: Who) -> bool {
        let (done, serves) = mpsc::channel();
        self.0.send((who, done)).is_ok() && serves.recv().is_ok()
    }
}

/// The server's end of a [`Blank`].
pub(crate) struct Adopted(oneshot::Receiver<(Who, mpsc::Sender<()>)>);

enum Told {
    Now(Who),
    Later(Adopted),
}

pub(crate) fn blank() -> (Blank, Adopted) {
    let (tell, told) = oneshot::channel();
    (Blank(tell), Adopted(told))
}

/// Runs for as long as the machine. `listening` is called once connections are taken; with
/// `adopted`, once they can be: then they wait until it is known whose they are, and no key or
/// secret is made before that, which a copy of this process would have too.
pub(crate) async fn serve(
    config: &GuestConfig,
    adopted: Option<Adopted>,
    listening: impl FnOnce(Sessions),
) -> Result<()> {
    let who = match adopted {
        None => Told::Now(Who::of(config)?),
        Some(adopted) => Told::Later(adopted),
    };
    let sessions = Sessions::new();
    let tcp = match config.ssh_port {
        0 => None,
        port => Some(listen(port)?),
    };
    let vsock = listen_vsock();
    outlive_signals()?;
    let adopted = match who {
        Told::Now(who) => {
            let ready = || listening(sessions.clone());
            return accept(tcp, vsock, who, sessions.clone(), ready).await;
        }
        Told::Later(adopted) => adopted,
    };
    listening(sessions.clone());
    match adopted.0.await {
        Ok((who, done)) => {
            accept(tcp, vsock, who, sessions, || done.send(()).unwrap_or_default()).await
        }
        // Nobody is left who could tell; what asks for the end of the machine is elsewhere.
        Err(_) => std::future::pending().await,
    }
}

async fn accept(
    tcp: Option<TcpListener>,
    vsock: Option<VsockListener>,
    who: Who,
    sessions: Sessions,
    serving: impl FnOnce(),
) -> Result<()> {
    let Who { ssh, guest } = who;
    if let Some(lane) = lane::open() {
        tokio::spawn(accept_lane(lane, Arc::clone(&guest)));
    }
    serving();
    let house = House { ssh, guest, sessions };
    if let Some(vsock) = vsock {
        tokio::spawn(accept_vsock(vsock, house.clone()));
    }
    match tcp {
        Some(tcp) => accept_tcp(tcp, house).await,
        None => std::future::pending().await,
    }
}

fn settings(host_key: PrivateKey) -> Config {
    Config {
        server_id: SshId::Standard(concat!("SSH-2.0-banger_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // Keys cannot be guessed, so a refusal need not take its time.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        preferred: preferred(),
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..Config::default()
    }
}

/// The client chooses among what is offered here, so what would be slow in an emulated guest is
/// not offered at all: no post-quantum exchange on a link that never leaves the host, and AES
/// with its instructions alone: `ChaCha20` took 1.6 times as long and AES in counter mode 4 times,
/// and OpenSSH prefers both.
fn preferred() -> Preferred {
    Preferred {
        kex: vec![
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]
        .into(),
        cipher: vec![cipher::AES_128_GCM, cipher::AES_256_GCM].into(),
        compression: vec![compression::NONE].into(),
        ..Preferred::default()
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    // One socket for both families, unless the kernel has no IPv6.
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener =
        bind(both).or_else(|_| bind(four)).context(|| format!("listen on TCP port {port}"))?;
    Ok(listener)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn listen_vsock() -> Option<VsockListener> {
    if !std::fs::exists("/dev/vsock").unwrap_or(false) {
        return None;
    }
    match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, VSOCK_SSH_PORT)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            log::line(format_args!("listen on vsock port {VSOCK_SSH_PORT}: {error}"));
            None
        }
    }
}

/// The server must live until the machine's last moment: it is what a shutdown is asked of. A
/// handler, and not ignoring: commands would inherit that.
fn outlive_signals() -> Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut stream = signal(kind).context(|| "handle signals".into())?;
        tokio::spawn(async move { while stream.recv().await.is_some() {} });
    }
    Ok(())
}

/// What every connection is given.
#[derive(Clone)]
struct House {
    ssh: Arc<Config>,
    guest: Arc<Guest>,
    sessions: Sessions,
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

async fn accept_vsock(listener: VsockListener, house: House) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                drop(tokio::spawn(connection(stream, house.clone())));
            }
            Err(error) => {
                log::line(format_args!("accept a vsock connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_lane(mut clients: Receiver<Greeted>, guest: Arc<Guest>) {
    while let Some(client) = clients.recv().await {
        match client.enter() {
            Ok(stream) => lane::serve(stream, &guest).await,
            Err(error) => log::line(format_args!("lane: {error}")),
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::TcpStream;

    use banger_agent::contract::config::{Control, RootLayout};

    use super::*;

    fn config(port: u16, host_key: &str) -> GuestConfig {
        GuestConfig {
            vm_id: [1; 16],
            hostname: "test".into(),
            net: None,
            authorized_keys: vec![],
            host_key: host_key.into(),
            root: RootLayout::Plain { disk: [0; 16] },
            work: None,
            env: vec![],
            op_id: [2; 16],
            control: Control::Vsock { port: 1 },
            ssh_port: port,
        }
    }

    #[test]
    fn a_blank_server_lets_clients_wait_until_it_is_told_whose_it_is() {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (tell, told) = blank();
        let (up, listens) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let nobody = config(port, "");
            let serving = serve(&nobody, Some(told), |_| up.send(()).unwrap());
            runtime.unwrap().block_on(serving)
        });
        listens.recv().unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut banner = [0; 8];
        assert_eq!(client.read(&mut banner).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(Who::of(&config(port, "")).is_err(), "nobody is not a guest");
        let key = include_str!("../../tests/fixtures/test_host_key");
        assert!(tell.serve_as(Who::of(&config(port, key)).unwrap()));
        client.set_nonblocking(false).unwrap();
        client.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"SSH-2.0-");
    }
}
