//! What is on the simulated host. Plain data: two worlds are the same if they are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::model::{Digest, Name, ProcessIdentity, ResourceKind, Size, TapName, Thing, VmId};
use crate::ports::{DiskPlan, ImageFile, KernelFile, Likeness};

/// Of the VMM that runs nothing.
pub(super) const VERSION: &str = "1";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub bridge: bool,
    pub taps: BTreeSet<TapName>,
    /// Taps that are off the bridge.
    pub loose: BTreeSet<TapName>,
    /// Somebody flushed the rules; who has NAT went with them.
    pub flushed: bool,
    /// Of the simulated tap pool; the daemon has its own.
    pub leases: BTreeMap<VmId, TapName>,
    pub nat: BTreeMap<VmId, Ipv4Addr>,
    pub disks: BTreeMap<VmId, DiskPlan>,
    /// Root disks that are devices, and open.
    pub open_roots: BTreeSet<VmId>,
    /// What guests changed of their root disks.
    pub fills: BTreeMap<VmId, Size>,
    /// VMs with a disk that a check finds damaged.
    pub damaged: BTreeSet<VmId>,
    pub configs: BTreeSet<VmId>,
    pub run_dirs: BTreeSet<VmId>,
    pub processes: BTreeMap<VmId, SimProcess>,
    /// Whose process somebody stopped.
    pub stopped: BTreeSet<VmId>,
    /// Whose guest its VMM has halted: the host could not write its disk.
    pub halted: BTreeSet<VmId>,
    /// The host's file system is full.
    pub full: bool,
    /// Guests whose health checks fail.
    pub ill: BTreeSet<VmId>,
    pub names: BTreeMap<Name, Ipv4Addr>,
    pub images: BTreeMap<Digest, ImageFile>,
    pub kernels: BTreeMap<Digest, KernelFile>,
    /// What was written of guests' memory.
    pub memory: BTreeMap<VmId, SimMemory>,
    pub snapshots: BTreeMap<PathBuf, Likeness>,
    /// Cgroups that hold nothing; each process has one besides.
    pub cgroups: BTreeSet<VmId>,
    /// Whose process runs behind walls.
    pub jails: BTreeSet<VmId>,
    /// Loop devices that do not go by themselves, by their files.
    pub loops: BTreeSet<PathBuf>,
    /// Files of work on images that a crash cut short.
    pub leftovers: BTreeSet<PathBuf>,
    /// What came from registries.
    pub blobs: BTreeSet<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimProcess {
    pub identity: ProcessIdentity,
    pub paused: bool,
    /// Which start of a process on this host began the guest.
    pub boot: u32,
    /// Who its guest is; nobody, if it is blank.
    pub guest: Option<VmId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimMemory {
    /// Whole and durable, or merely written.
    pub kept: bool,
    pub boot: u32,
    /// Of the VMM that wrote it.
    pub version: String,
}

impl World {
    /// The host as its next boot finds it: what is on its disk, and what it made at once anew.
    #[must_use]
    pub fn after_reboot(self) -> Self {
        Self {
            bridge: self.bridge,
            leases: self.leases,
            disks: self.disks,
            fills: self.fills,
            configs: self.configs,
            images: self.images,
            kernels: self.kernels,
            memory: self.memory,
            snapshots: self.snapshots,
            leftovers: self.leftovers,
            blobs: self.blobs,
            ..Self::default()
        }
    }

    /// All that ought to have a row in the ledger, as who looks would find it.
    #[must_use]
    pub fn things(&self) -> BTreeSet<Thing> {
        use ResourceKind as K;
        let of = |kind, vms: Vec<VmId>| {
            vms.into_iter().map(move |vm| Thing { kind, name: vm.to_string(), vm: Some(vm) })
        };
        let processes: Vec<_> = self.processes.keys().copied().collect();
        let cgroups = self.cgroups.iter().chain(&processes).copied().collect::<BTreeSet<_>>();
        let runs = self.run_dirs.iter();
        let runs = runs.map(|vm| Thing { kind: K::RunDir, name: vm.short(), vm: Some(*vm) });
        let nat = self.nat.iter();
        let nat = nat.map(|(vm, at)| Thing { kind: K::Nat, name: at.to_string(), vm: Some(*vm) });
        let kept = self.memory.iter().filter(|(_, memory)| memory.kept).map(|(vm, _)| *vm);
        of(K::VmDir, self.disks.keys().copied().collect())
            .chain(of(K::Config, self.configs.iter().copied().collect()))
            .chain(of(K::Device, self.open_roots.iter().copied().collect()))
            .chain(of(K::Jail, self.jails.iter().copied().collect()))
            .chain(of(K::Memory, kept.collect()))
            .chain(of(K::Cgroup, cgroups.into_iter().collect()))
            .chain(of(K::Process, processes))
            .chain(runs)
            .chain(nat)
            .collect()
    }

    /// Without what differs from one run of the same operation to the next: process identities,
    /// and snapshots, which are a cache.
    #[must_use]
    pub fn shape(mut self) -> Self {
        self.snapshots.clear();
        for process in self.processes.values_mut() {
            process.identity.pid = 0;
            process.identity.start_ticks = 0;
            process.boot = 0;
        }
        for memory in self.memory.values_mut() {
            memory.boot = 0;
        }
        self
    }
}
