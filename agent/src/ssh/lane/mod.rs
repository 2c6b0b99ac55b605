//! The guest's end of `contract::lane`: a program a client, on a port of the VMM's own or by vsock.

mod port;
mod session;

pub(super) use port::{Greeted, open};
pub(super) use session::{greet, serve};
