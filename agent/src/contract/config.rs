//! What a guest is told before it can be spoken to: who it is, which disks are its own, how it
//! reaches the network and whose keys open it. Written by the host onto the config drive.
//!
//! Disks are named by the UUID of their ext4 file system, never by position: the order in which
//! virtio devices appear differs between VMMs.

use std::fmt;
use std::net::Ipv4Addr;

use super::codec::{Decode, Encode};

#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct GuestConfig {
    pub vm_id: [u8; 16],
    pub hostname: String,
    pub net: Option<NetConfig>,
    /// OpenSSH public key lines. Any of them opens any account of the guest.
    pub authorized_keys: Vec<String>,
    /// OpenSSH PEM of an ed25519 private key, made by the host and so known before the first boot.
    /// Empty: the guest is blank, see [`GuestConfig::is_blank`].
    pub host_key: String,
    pub root: RootLayout,
    /// UUID of the ext4 that becomes `/root`.
    pub work: Option<[u8; 16]>,
    /// Set for every command and shell, before what the client asks for.
    pub env: Vec<(String, String)>,
    /// The operation that starts this boot.
    pub op_id: [u8; 16],
    pub control: Control,
    /// TCP port of the SSH server; 0 for none.
    pub ssh_port: u16,
}

impl GuestConfig {
    /// A blank guest is nobody yet: of its config only the disks, the control link and the SSH
    /// port count. It boots as far as its control link and waits there for
    /// [`super::control::HostBody::Adopt`]; nothing of the image has run by then, and nobody can
    /// enter. Its memory can be copied and each copy made another guest.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.host_key.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NetConfig {
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    pub prefix_len: u8,
    pub gateway: Ipv4Addr,
    pub dns: Vec<Ipv4Addr>,
    pub search: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RootLayout {
    /// A shared base that is never written, under a private overlay. The base is named by its
    /// ext4 UUID, or by the first 16 bytes of its own UUID field for erofs; a squashfs has none
    /// and is found as the only one.
    Overlay { base: [u8; 16], overlay: [u8; 16] },
    /// One private disk, mounted writable.
    Plain { disk: [u8; 16] },
}

/// Where the agent speaks the protocol of [`super::control`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Control {
    /// A virtio-serial port of this name.
    VirtioSerial { name: String },
    /// The agent dials the host (CID 2) on this port, again and again until somebody takes its
    /// `Ready` or `NotReady`. What the host wants of it later it asks by dialling the same port of
    /// the guest, a connection a question.
    Vsock { port: u32 },
}

/// The private key stays out of logs.
impl fmt::Debug for GuestConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestConfig")
            .field("vm_id", &u128::from_be_bytes(self.vm_id))
            .field("hostname", &self.hostname)
            .field("net", &self.net)
            .field("root", &self.root)
            .field("work", &self.work)
            .field("control", &self.control)
            .field("ssh_port", &self.ssh_port)
            .finish_non_exhaustive()
    }
}
