//! What is on the simulated host. Plain data: two worlds are the same if they are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::{Digest, Name, ProcessIdentity, TapName, VmId};
use crate::ports::{DiskPlan, ImageFile, KernelFile};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub bridge: bool,
    pub taps: BTreeSet<TapName>,
    /// Of the simulated tap pool; the daemon has its own.
    pub leases: BTreeMap<VmId, TapName>,
    pub nat: BTreeMap<VmId, Ipv4Addr>,
    pub disks: BTreeMap<VmId, DiskPlan>,
    pub configs: BTreeSet<VmId>,
    pub run_dirs: BTreeSet<VmId>,
    pub processes: BTreeMap<VmId, SimProcess>,
    pub names: BTreeMap<Name, Ipv4Addr>,
    pub images: BTreeMap<Digest, ImageFile>,
    pub kernels: BTreeMap<Digest, KernelFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimProcess {
    pub identity: ProcessIdentity,
}

impl World {
    /// Without what differs from one run of the same operation to the next: process identities.
    #[must_use]
    pub fn shape(mut self) -> Self {
        for process in self.processes.values_mut() {
            process.identity.pid = 0;
            process.identity.start_ticks = 0;
        }
        self
    }
}
