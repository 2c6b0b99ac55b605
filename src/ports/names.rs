//! `<name>.vm`.

use std::net::{Ipv4Addr, SocketAddr};

use super::PortFuture;
use crate::model::{Name, OpId};

/// Implemented by the DNS actor's handle. Names follow VM start and stop.
pub trait NameSink: Send + Sync + std::fmt::Debug {
    fn publish<'a>(&'a self, op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()>;

    /// Only if the name still has this address.
    fn withdraw<'a>(&'a self, op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()>;
}

/// The DNS server itself, for the DNS actor alone. Its table is derived and held in memory, so
/// changing it cannot fail.
pub trait NameHost: Send + Sync + std::fmt::Debug {
    /// Starts answering; answers with the bound address. Called again after a failure.
    fn serve(&self) -> PortFuture<'_, SocketAddr>;

    fn set(&self, name: &Name, address: Ipv4Addr);

    fn remove(&self, name: &Name);

    /// Stops answering and frees the port.
    fn stop(&self) -> PortFuture<'_, ()>;
}
