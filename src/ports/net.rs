//! Links, addresses and NAT on the host.

use std::net::Ipv4Addr;

use super::PortFuture;
use crate::model::{NetSeen, OpId, TapName, VmId};

/// What the helper does to the network, for one bridge and one nftables table, both configured.
pub trait NetHost: Send + Sync + std::fmt::Debug {
    /// Bridge with its address, forwarding on, and the table with its fixed rules. A subnet that
    /// some other link uses is refused by name.
    fn ensure_bridge(&self, op: OpId) -> PortFuture<'_, ()>;

    /// Removes the table and, if no port is left, the bridge.
    fn remove_bridge(&self, op: OpId) -> PortFuture<'_, ()>;

    /// A persistent tap on the bridge, up, owned by the daemon's user, marked as ours.
    fn ensure_tap<'a>(&'a self, op: OpId, tap: &'a TapName) -> PortFuture<'a, ()>;

    fn remove_tap<'a>(&'a self, op: OpId, tap: &'a TapName) -> PortFuture<'a, ()>;

    /// Taps on the bridge that carry our mark.
    fn list_taps(&self, op: OpId) -> PortFuture<'_, Vec<TapName>>;

    /// Lets this guest reach what lies behind the host.
    fn ensure_nat(&self, op: OpId, vm: VmId, guest: Ipv4Addr) -> PortFuture<'_, ()>;

    fn remove_nat(&self, op: OpId, vm: VmId, guest: Ipv4Addr) -> PortFuture<'_, ()>;

    /// What is there of all this. Changes nothing, and answers or fails within seconds.
    fn survey(&self, op: OpId) -> PortFuture<'_, NetSeen>;
}

/// Leases of warm taps; implemented by the tap pool's handle. A lease is durable and belongs to
/// the VM until it is released.
pub trait TapSource: Send + Sync + std::fmt::Debug {
    /// The VM's tap, the same one if asked again.
    fn lease(&self, op: OpId, vm: VmId) -> PortFuture<'_, TapName>;

    /// Gives the tap back. Without a lease nothing happens.
    fn release(&self, op: OpId, vm: VmId) -> PortFuture<'_, ()>;
}
