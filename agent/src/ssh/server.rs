//! Listening: on TCP and on vsock; and whose server it is. What comes is taken in by [`super::accept`].

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use banger_agent::contract::config::GuestConfig;
use banger_agent::contract::{VSOCK_SSH_PORT, lane};
use russh::keys::PrivateKey;
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use super::accept::{Doors, House, accept};
use super::auth::Keys;
use super::session::Guest;
use super::sessions::Sessions;
use crate::error::{AgentError, Context as _, Result};
use crate::log;

const KEEPALIVE: Duration = Duration::from_secs(30);

/// What makes a server one guest's: its host key, who may come in, what programs are given.
pub(crate) struct Who {
    ssh: Arc<Config>,
    guest: Arc<Guest>,
}

impl Who {
    fn house(self, sessions: Sessions) -> House {
        House { ssh: self.ssh, guest: self.guest, sessions }
    }
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
    let (vsock, lane) = (listen_vsock(VSOCK_SSH_PORT), listen_vsock(lane::VSOCK_PORT));
    let doors = Doors { tcp, vsock, lane };
    outlive_signals()?;
    let adopted = match who {
        Told::Now(who) => {
            let ready = || listening(sessions.clone());
            return accept(doors, who.house(sessions.clone()), ready).await;
        }
        Told::Later(adopted) => adopted,
    };
    listening(sessions.clone());
    match adopted.0.await {
        Ok((who, done)) => {
            accept(doors, who.house(sessions), || done.send(()).unwrap_or_default()).await
        }
        // Nobody is left who could tell; what asks for the end of the machine is elsewhere.
        Err(_) => std::future::pending().await,
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

fn listen_vsock(port: u32) -> Option<VsockListener> {
    if !std::fs::exists("/dev/vsock").unwrap_or(false) {
        return None;
    }
    match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            log::line(format_args!("listen on vsock port {port}: {error}"));
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
