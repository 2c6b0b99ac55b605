//! The host's network as it is, and what it takes to be as it should.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::ids::VmId;
use super::network::TapName;

/// What somebody found who looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetSeen {
    /// Ours, up, and with its address.
    pub bridge: bool,
    pub forwarding: bool,
    /// The nftables table: ours, and whole.
    pub table: bool,
    /// Those with our mark.
    pub taps: BTreeMap<TapName, TapSeen>,
    pub nat: BTreeMap<VmId, Ipv4Addr>,
    /// Chains of others that drop what is forwarded unless they let it pass: `ip filter FORWARD`.
    pub drops: Vec<String>,
    /// Version of the helper that looked.
    pub helper: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapSeen {
    /// On the bridge, and up.
    pub attached: bool,
    /// A VMM has it open.
    pub used: bool,
}

/// What a VM that runs should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOf {
    pub vm: VmId,
    pub tap: TapName,
    pub address: Ipv4Addr,
    pub nat: bool,
}

/// What is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetAmiss {
    /// Of what all VMs share, in words.
    pub shared: Vec<&'static str>,
    /// VMs whose taps are off the bridge, or down.
    pub loose: Vec<VmId>,
    /// VMs whose rule is missing.
    pub nat: Vec<(VmId, Ipv4Addr)>,
    /// Rules that belong to no VM that runs.
    pub stray: Vec<(VmId, Ipv4Addr)>,
    /// VMs whose taps are gone: a VMM keeps the one that it opened, and cannot be given another.
    pub lost: Vec<VmId>,
}

impl NetSeen {
    /// `vms`: those that run and are left in peace. `busy`: those that something is being done to,
    /// whose rules come and go.
    #[must_use]
    pub fn amiss(&self, vms: &[NetOf], busy: &[VmId]) -> NetAmiss {
        let mut amiss = NetAmiss::default();
        for (there, what) in [
            (self.bridge, "the bridge"),
            (self.table, "the nftables table"),
            (self.forwarding, "forwarding of IPv4"),
        ] {
            if !there {
                amiss.shared.push(what);
            }
        }
        for of in vms {
            match self.taps.get(&of.tap) {
                Some(TapSeen { used: true, attached: true }) => {}
                Some(TapSeen { used: true, attached: false }) => amiss.loose.push(of.vm),
                Some(TapSeen { used: false, .. }) | None => amiss.lost.push(of.vm),
            }
            if of.nat && self.nat.get(&of.vm) != Some(&of.address) {
                amiss.nat.push((of.vm, of.address));
            }
        }
        let has_one = |vm: &VmId| vms.iter().any(|of| of.vm == *vm && of.nat) || busy.contains(vm);
        let stray = self.nat.iter().filter(|(vm, _)| !has_one(vm));
        amiss.stray = stray.map(|(vm, address)| (*vm, *address)).collect();
        amiss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(n: u8, nat: bool) -> NetOf {
        NetOf {
            vm: VmId([n; 16]),
            tap: TapName::new("tap", u16::from(n)),
            address: Ipv4Addr::new(10, 0, 0, n),
            nat,
        }
    }

    fn whole(vms: &[NetOf]) -> NetSeen {
        let tap = TapSeen { attached: true, used: true };
        let nat = vms.iter().filter(|of| of.nat);
        NetSeen {
            bridge: true,
            forwarding: true,
            table: true,
            taps: vms.iter().map(|of| (of.tap.clone(), tap)).collect(),
            nat: nat.map(|of| (of.vm, of.address)).collect(),
            ..NetSeen::default()
        }
    }

    #[test]
    fn what_is_whole_is_left_alone() {
        let vms = [vm(1, true), vm(2, false)];
        assert_eq!(whole(&vms).amiss(&vms, &[]), NetAmiss::default());
    }

    #[test]
    fn each_thing_that_is_gone_is_named() {
        let vms = [vm(1, true), vm(2, false), vm(3, false)];
        let mut seen = whole(&vms);
        (seen.bridge, seen.table) = (false, false);
        seen.nat.clear();
        seen.taps.get_mut(&vms[0].tap).unwrap().attached = false;
        seen.taps.get_mut(&vms[1].tap).unwrap().used = false;
        seen.taps.remove(&vms[2].tap);
        let amiss = seen.amiss(&vms, &[]);
        assert_eq!(amiss.shared, ["the bridge", "the nftables table"]);
        assert_eq!(amiss.loose, [vms[0].vm]);
        assert_eq!(amiss.nat, [(vms[0].vm, vms[0].address)]);
        assert_eq!(amiss.lost, [vms[1].vm, vms[2].vm]);
    }

    #[test]
    fn a_rule_of_nobody_is_stray_and_that_of_a_vm_being_stopped_is_not() {
        let seen = whole(&[vm(1, true), vm(2, true), vm(3, true)]);
        let amiss = seen.amiss(&[vm(1, true)], &[VmId([2; 16])]);
        assert_eq!(amiss.stray, [(VmId([3; 16]), Ipv4Addr::new(10, 0, 0, 3))]);
    }
}
