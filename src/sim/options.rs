//! How a simulated host is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{At, Fault, SimWorld, World};
use crate::model::Subnet;
use crate::ports::Ports;

#[derive(Clone, Debug)]
pub struct SimOptions {
    /// What is there from the beginning.
    pub world: World,
    pub faults: Vec<(At, Fault)>,
    pub subnet: Subnet,
    /// Of every call.
    pub latency: Duration,
    /// From a process's start until its guest is ready.
    pub boot: Duration,
    /// Where VMs' files would be; nothing is written there.
    pub vms_dir: PathBuf,
    pub run_dir: PathBuf,
    /// For taps that the simulated pool makes.
    pub tap_prefix: String,
    /// What the clock shows at first.
    pub epoch_ms: u64,
}

impl SimOptions {
    #[must_use]
    pub fn new(subnet: Subnet) -> Self {
        Self {
            world: World { bridge: true, ..World::default() },
            faults: vec![],
            subnet,
            latency: Duration::ZERO,
            boot: Duration::ZERO,
            vms_dir: PathBuf::from("/sim/vms"),
            run_dir: PathBuf::from("/sim/run"),
            tap_prefix: "sim-".to_owned(),
            epoch_ms: 1_700_000_000_000,
        }
    }
}

/// One host behind all ports, and the handle by which tests look at it.
#[must_use]
pub fn ports(options: SimOptions) -> (Ports, Arc<SimWorld>) {
    let world = Arc::new(SimWorld::new(options));
    (world.ports(), world)
}

impl SimWorld {
    /// This host behind all ports.
    #[must_use]
    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports {
            hypervisor: Arc::<Self>::clone(self),
            process: Arc::<Self>::clone(self),
            net: Arc::<Self>::clone(self),
            taps: Arc::<Self>::clone(self),
            disk: Arc::<Self>::clone(self),
            guest: Arc::<Self>::clone(self),
            images: Arc::<Self>::clone(self),
            names: Arc::<Self>::clone(self),
            warm: Arc::<Self>::clone(self),
            clock: Arc::<Self>::clone(self),
        }
    }
}
