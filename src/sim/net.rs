//! Bridge, taps and NAT, and a pool of taps.

use std::net::Ipv4Addr;

use futures::FutureExt;

use super::state::State;
use super::{SimWorld, World};
use crate::model::{Code, NetSeen, OpId, TapName, TapSeen, VmId};
use crate::ports::{HostError, NetHost, PortFuture, TapSource};

/// IFNAMSIZ, less the zero at the end (netdevice(7)).
const MAX_LINK_NAME: usize = 15;

impl NetHost for SimWorld {
    fn ensure_bridge(&self, _op: OpId) -> PortFuture<'_, ()> {
        let up = |state: &mut State| {
            (state.world.bridge, state.world.flushed) = (true, false);
            Ok(())
        };
        self.call("net.ensure_bridge", up).boxed()
    }

    fn remove_bridge(&self, _op: OpId) -> PortFuture<'_, ()> {
        let down = |state: &mut State| {
            state.world.nat.clear();
            state.world.bridge = !state.world.taps.is_empty();
            Ok(())
        };
        self.call("net.remove_bridge", down).boxed()
    }

    fn ensure_tap<'a>(&'a self, _op: OpId, tap: &'a TapName) -> PortFuture<'a, ()> {
        let make = move |state: &mut State| {
            check_tap(tap)?;
            if !state.world.bridge {
                return Err(HostError::new(Code::NotFound, "attach tap to bridge", &tap.0));
            }
            state.world.taps.insert(tap.clone());
            state.world.loose.remove(tap);
            Ok(())
        };
        self.call("net.ensure_tap", make).boxed()
    }

    fn remove_tap<'a>(&'a self, _op: OpId, tap: &'a TapName) -> PortFuture<'a, ()> {
        let remove = move |state: &mut State| {
            check_tap(tap)?;
            state.world.taps.remove(tap);
            state.world.loose.remove(tap);
            Ok(())
        };
        self.call("net.remove_tap", remove).boxed()
    }

    fn list_taps(&self, _op: OpId) -> PortFuture<'_, Vec<TapName>> {
        let list = |state: &mut State| Ok(state.world.taps.iter().cloned().collect());
        self.call("net.list_taps", list).boxed()
    }

    fn ensure_nat(&self, _op: OpId, vm: VmId, guest: Ipv4Addr) -> PortFuture<'_, ()> {
        let add = move |state: &mut State| {
            self.check_guest(guest)?;
            if !state.world.bridge {
                return Err(HostError::new(Code::NotFound, "allow NAT for", guest.to_string()));
            }
            state.world.flushed = false; // the table is made sure of first
            state.world.nat.insert(vm, guest);
            Ok(())
        };
        self.call("net.ensure_nat", add).boxed()
    }

    fn remove_nat(&self, _op: OpId, vm: VmId, guest: Ipv4Addr) -> PortFuture<'_, ()> {
        let remove = move |state: &mut State| {
            self.check_guest(guest)?;
            if state.world.nat.get(&vm) == Some(&guest) {
                state.world.nat.remove(&vm);
            }
            Ok(())
        };
        self.call("net.remove_nat", remove).boxed()
    }

    fn survey(&self, _op: OpId) -> PortFuture<'_, NetSeen> {
        let look = |state: &mut State| {
            let World { bridge, taps, loose, flushed, nat, .. } = &state.world;
            let tap = |tap: &TapName| {
                let attached = *bridge && !loose.contains(tap);
                (tap.clone(), TapSeen { attached, used: true })
            };
            Ok(NetSeen {
                bridge: *bridge,
                forwarding: true,
                table: !flushed,
                taps: taps.iter().map(tap).collect(),
                nat: nat.clone(),
                drops: vec![],
                helper: env!("CARGO_PKG_VERSION").to_owned(),
            })
        };
        self.call("net.survey", look).boxed()
    }
}

impl SimWorld {
    fn check_guest(&self, guest: Ipv4Addr) -> Result<(), HostError> {
        let subnet = self.options.subnet;
        if subnet.contains(guest) && guest != subnet.gateway() && guest != subnet.network() {
            return Ok(());
        }
        let error = HostError::new(Code::Invalid, "check guest address", guest.to_string());
        Err(error.because(format!("no guest of {subnet}")))
    }
}

fn check_tap(tap: &TapName) -> Result<(), HostError> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=MAX_LINK_NAME).contains(&tap.0.len()) && tap.0.chars().all(fine) {
        return Ok(());
    }
    Err(HostError::new(Code::Invalid, "check link name", &tap.0))
}

impl TapSource for SimWorld {
    /// The lowest tap that is free, or a new one.
    fn lease(&self, _op: OpId, vm: VmId) -> PortFuture<'_, TapName> {
        let lease = move |state: &mut State| {
            let world = &mut state.world;
            if let Some(tap) = world.leases.get(&vm) {
                return Ok(tap.clone());
            }
            let leased = |tap: &TapName| world.leases.values().any(|other| other == tap);
            let free = world.taps.iter().find(|tap| !leased(tap)).cloned();
            let new =
                || (0..).map(|n| TapName::new(&self.options.tap_prefix, n)).find(|t| !leased(t));
            let Some(tap) = free.or_else(new) else {
                return Err(HostError::new(Code::Host, "lease a tap for", vm.short()));
            };
            world.taps.insert(tap.clone());
            world.leases.insert(vm, tap.clone());
            Ok(tap)
        };
        self.call("taps.lease", lease).boxed()
    }

    fn release(&self, _op: OpId, vm: VmId) -> PortFuture<'_, ()> {
        let release = move |state: &mut State| {
            state.world.leases.remove(&vm);
            Ok(())
        };
        self.call("taps.release", release).boxed()
    }
}
