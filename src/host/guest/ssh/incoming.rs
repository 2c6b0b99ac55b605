//! Connections that the guest opens to us: to a port it was asked to listen on, and to the user's agent
//! for keys. Refused unless somebody takes them.

use russh::Channel;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{GuestError, GuestSsh};

/// Connections that wait to be taken.
const WAITING: usize = 16;

/// One of them.
pub struct FromGuest {
    pub what: Incoming,
    channel: Channel<Msg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// To this port of the guest's.
    Port(u32),
    Agent,
}

pub type FromGuests = mpsc::Receiver<FromGuest>;
pub(super) type ToTaker = mpsc::Sender<FromGuest>;

pub(super) fn taker() -> (ToTaker, FromGuests) {
    mpsc::channel(WAITING)
}

impl FromGuest {
    pub(super) fn new(what: Incoming, channel: Channel<Msg>) -> Self {
        Self { what, channel }
    }

    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        self.channel.into_stream()
    }
}

impl std::fmt::Debug for FromGuest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FromGuest").field(&self.what).finish()
    }
}

impl GuestSsh {
    /// Has the guest listen on a port of its own, on its choice for 0; answers with the port.
    pub async fn listen(&self, address: &str, port: u16) -> Result<u32, GuestError> {
        match self.handle.0.tcpip_forward(address, u32::from(port)).await {
            Ok(0) => Ok(u32::from(port)),
            Ok(chosen) => Ok(chosen),
            Err(russh::Error::RequestDenied) => {
                Err(GuestError::RequestRefused { what: "listen on that port" })
            }
            Err(error) => Err(self.lost("asking for a port", Some(error))),
        }
    }
}
