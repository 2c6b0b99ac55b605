//! Where a guest's SSH server is and who it must be.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, PartialEq, Eq)]
pub struct SshEndpoint {
    pub target: SshTarget,
    /// OpenSSH public key line. The server must prove this key and no other.
    pub host_key: String,
    /// OpenSSH PEM.
    pub client_private: String,
    pub user: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshTarget {
    Tcp(SocketAddr),
    /// A socket on which the server speaks at once.
    Unix(PathBuf),
    /// A port of the guest behind Firecracker's socket: no network in between.
    Vsock(PathBuf, u32),
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Vsock(path, port) => write!(f, "{}:{port}", path.display()),
        }
    }
}

/// The private key stays out of logs.
impl fmt::Debug for SshEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshEndpoint")
            .field("target", &self.target)
            .field("host_key", &self.host_key)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
