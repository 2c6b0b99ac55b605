//! Why a conversation with a guest failed. The kinds are those that callers treat differently.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("guest endpoint {target}: unusable {what}")]
    Endpoint {
        target: String,
        what: &'static str,
        #[source]
        source: russh::keys::ssh_key::Error,
    },
    #[error("connect to guest at {target}")]
    Unreachable {
        target: String,
        #[source]
        source: io::Error,
    },
    /// Somebody else answers at the guest's address.
    #[error("guest at {target} showed another host key than its own")]
    HostKeyMismatch { target: String },
    #[error("guest at {target} refused the key of user {user}")]
    AuthRefused { target: String, user: String },
    #[error("ssh handshake with guest at {target}")]
    Handshake {
        target: String,
        #[source]
        source: russh::Error,
    },
    #[error("guest refused to open {what}")]
    ChannelRefused {
        what: String,
        #[source]
        source: russh::Error,
    },
    #[error("guest refused to {what}")]
    RequestRefused { what: &'static str },
    #[error("program to run in the guest")]
    Request(#[source] banger_agent::contract::exec::ExecError),
    /// The guest died, the network went, or the agent was stopped.
    #[error("lost connection to guest at {target} while {during}")]
    Lost {
        target: String,
        during: &'static str,
        #[source]
        source: Option<russh::Error>,
    },
    #[error("read standard input")]
    Input(#[source] io::Error),
    /// Whoever read the output left; the program in the guest was told so.
    #[error("nobody reads the output any more")]
    OutputClosed,
    #[error("write output of the guest")]
    Output(#[source] io::Error),
}

impl GuestError {
    /// Of the caller's stdout or stderr.
    pub(in crate::host::guest) fn writing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}
