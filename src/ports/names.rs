//! `<name>.vm`.

use std::net::Ipv4Addr;

use super::PortFuture;
use crate::model::{Name, OpId};

/// Implemented by the DNS actor's handle. Names follow VM start and stop.
pub trait NameSink: Send + Sync + std::fmt::Debug {
    fn publish<'a>(&'a self, op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()>;

    /// Only if the name still has this address.
    fn withdraw<'a>(&'a self, op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()>;
}
