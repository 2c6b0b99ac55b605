//! An SSH client for one guest: connect, run a program or a shell, forward a connection.
//!
//! ```text
//! GuestSsh::connect ─> exec(ExecSpec, GuestIo, controls) ─> ExitKind
//!                  ├─> direct_tcpip(host, port) ─> a stream
//!                  └─> listen(port) ─> streams that the guest opens
//! ```
//!
//! Made for the CLI, which dials the guest by itself: the daemon may come and go meanwhile. The
//! caller owns the terminal, its raw mode and its signals, and hands over plain streams; nothing
//! here prints, reads the environment or ends the process.

mod client;
mod endpoint;
mod error;
mod exec;
mod incoming;
mod program;
mod pump;

pub use client::{GuestSsh, stream};
pub use endpoint::{SshEndpoint, SshTarget};
pub use error::GuestError;
pub use incoming::{FromGuest, FromGuests, Incoming};
pub use program::{Control, ExecSpec, ExitKind, GuestIo, Program, Pty};

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod sshd_tests;
