//! The name server, and the sink that operations publish to when there is no actor before it.

use std::net::{Ipv4Addr, SocketAddr};

use futures::FutureExt;

use super::SimWorld;
use super::state::State;
use crate::model::{Name, OpId};
use crate::ports::{NameHost, NameSink, PortFuture};

impl NameSink for SimWorld {
    fn publish<'a>(&'a self, _op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()> {
        let publish = move |state: &mut State| {
            state.world.names.insert(name.clone(), address);
            Ok(())
        };
        self.call("names.publish", publish).boxed()
    }

    fn withdraw<'a>(&'a self, _op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()> {
        let withdraw = move |state: &mut State| {
            if state.world.names.get(name) == Some(&address) {
                state.world.names.remove(name);
            }
            Ok(())
        };
        self.call("names.withdraw", withdraw).boxed()
    }
}

impl NameHost for SimWorld {
    /// Nothing listens there.
    fn serve(&self) -> PortFuture<'_, SocketAddr> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 42069));
        self.call("name_host.serve", move |_| Ok(address)).boxed()
    }

    fn set(&self, name: &Name, address: Ipv4Addr) {
        self.lock().world.names.insert(name.clone(), address);
    }

    fn remove(&self, name: &Name) {
        self.lock().world.names.remove(name);
    }

    fn stop(&self) -> PortFuture<'_, ()> {
        self.call("name_host.stop", |_| Ok(())).boxed()
    }
}
