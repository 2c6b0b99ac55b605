//! How the agent's control link is reached in a VM that runs: by a virtio-serial port, which the
//! VMM offers as a Unix socket, or by vsock through Firecracker's.
//!
//! Which of them it is, the VM's run directory says: nothing else is sure to be known after a
//! restart of the daemon.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_agent::contract::control::VSOCK_PORT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::ports::VmPaths;

/// `OK ` and a port number.
const MAX_ANSWER: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Port { socket: PathBuf },
    Vsock { socket: PathBuf, listener: PathBuf },
}

impl Line {
    /// Firecracker's sockets are there before its guest runs; a port may come late.
    pub(super) fn of(paths: &VmPaths) -> Self {
        let socket = paths.vsock_socket();
        if socket.exists() {
            return Self::Vsock { socket, listener: paths.vsock_listener(VSOCK_PORT) };
        }
        Self::Port { socket: paths.control_socket() }
    }

    /// A stream to the agent. On a port it is there whether or not the agent is.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Port { socket } => UnixStream::connect(socket).await,
            Self::Vsock { socket, .. } => connect_vsock(socket, VSOCK_PORT).await,
        }
    }
}

/// A stream to whoever listens on that port in the guest. How long to wait is the caller's to decide.
pub(super) async fn connect_vsock(socket: &Path, port: u32) -> io::Result<UnixStream> {
    call_vsock(socket, port, b"").await
}

/// The same, with the first words for the guest on their way while it is connected to.
pub(super) async fn call_vsock(socket: &Path, port: u32, words: &[u8]) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    let call = [format!("CONNECT {port}\n").as_bytes(), words].concat();
    stream.write_all(&call).await?;
    greeted(&mut stream).await?;
    Ok(stream)
}

/// Reads Firecracker's `OK <port>` and not a byte more: the agent's words may follow at once.
/// Where nobody listens, it hangs up.
async fn greeted(stream: &mut UnixStream) -> io::Result<()> {
    use io::ErrorKind as E;
    let mut answer = vec![];
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if answer.len() < MAX_ANSWER => answer.push(byte),
            Ok(_) => break,
            // Reset, where it left words for the guest unread.
            Err(error) if matches!(error.kind(), E::UnexpectedEof | E::ConnectionReset) => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "nobody listens in the guest",
                ));
            }
            Err(error) => return Err(error),
        }
    }
    match answer.starts_with(b"OK ") {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&answer).into_owned();
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("not OK but {said:?}")))
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { socket } | Self::Vsock { socket, .. } => socket.display().fmt(f),
        }
    }
}

/// Where connections arrive that the guest makes; goes when it is dropped.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Takes the place of one that a daemon left which died.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The VMM that knocks is another user. Who may come as far as this, the directory decides.
        std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(Self { listener, path })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path)); // with the run directory at the latest
    }
}
