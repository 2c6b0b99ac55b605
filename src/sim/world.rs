//! What is on the simulated host. Plain data: two worlds are the same if they are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::model::{
    Digest, ImageRecord, KernelRecord, Name, ProcessIdentity, Size, TapName, VmId, VmRecord,
    VmState,
};
use crate::ports::{DiskPlan, ImageFile, KernelFile, Likeness};

/// Of the VMM that runs nothing.
pub(super) const VERSION: &str = "1";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub bridge: bool,
    pub taps: BTreeSet<TapName>,
    /// Of the simulated tap pool; the daemon has its own.
    pub leases: BTreeMap<VmId, TapName>,
    pub nat: BTreeMap<VmId, Ipv4Addr>,
    pub disks: BTreeMap<VmId, DiskPlan>,
    /// Root disks that are devices, and open.
    pub open_roots: BTreeSet<VmId>,
    /// What guests changed of their root disks.
    pub fills: BTreeMap<VmId, Size>,
    pub configs: BTreeSet<VmId>,
    pub run_dirs: BTreeSet<VmId>,
    pub processes: BTreeMap<VmId, SimProcess>,
    pub names: BTreeMap<Name, Ipv4Addr>,
    pub images: BTreeMap<Digest, ImageFile>,
    pub kernels: BTreeMap<Digest, KernelFile>,
    /// What was written of guests' memory.
    pub memory: BTreeMap<VmId, SimMemory>,
    pub snapshots: BTreeMap<PathBuf, Likeness>,
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
    /// The host of a daemon that was here before: the files of what it has on record are there,
    /// and nothing runs, as after a restart of the host.
    #[must_use]
    pub fn rebooted(images: &[ImageRecord], kernels: &[KernelRecord], vms: &[VmRecord]) -> Self {
        let image = |image: &ImageRecord| {
            let (uuid, size, source) = (image.uuid, image.size, image.source.clone());
            (image.digest, ImageFile { digest: image.digest, uuid, size, source })
        };
        let kernel = |kernel: &KernelRecord| {
            let file = KernelFile {
                digest: kernel.digest,
                version: kernel.version.clone(),
                distro: kernel.distro.clone(),
                arch: kernel.arch.clone(),
                modules: kernel.modules,
                size: kernel.size,
                source: kernel.source.clone(),
            };
            (kernel.digest, file)
        };
        let disks = |vm: &VmRecord| (vm.id, DiskPlan::for_vm(vm.id, &vm.spec));
        let memory = |vm: &VmRecord| {
            let memory = SimMemory { kept: true, boot: 0, version: VERSION.to_owned() };
            (vm.state == VmState::Suspended).then_some((vm.id, memory))
        };
        Self {
            images: images.iter().map(image).collect(),
            kernels: kernels.iter().map(kernel).collect(),
            disks: vms.iter().map(disks).collect(),
            memory: vms.iter().filter_map(memory).collect(),
            ..Self::default()
        }
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
