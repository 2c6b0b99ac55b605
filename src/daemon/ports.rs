//! Which adapters stand behind the ports: the host's, or the simulated ones.

use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonError;
use crate::config::{Config, HostFacts, Sim};
use crate::host::clock::SystemClock;
use crate::host::disk::LocalDisks;
use crate::host::facts;
use crate::host::guest::{AgentLink, Furniture, git_identity, owner_key};
use crate::host::helper_client::{HelperClient, HelperNet, HelperProcess};
use crate::host::image::LocalImages;
use crate::host::names::DnsServer;
use crate::host::vmm::{VmmConfig, Vmms};
use crate::host::warm::LocalWarm;
use crate::ports::{
    Clock, DiskHost, GuestLink, HostError, Hypervisor, ImageHost, NameHost, NetHost, ProcessHost,
    WarmHost,
};
use crate::sim::{Planned, SimOptions, SimWorld};

/// The ports as adapters, before actors stand between: taps and names are leased and published
/// through actors.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) process: Arc<dyn ProcessHost>,
    pub(super) net: Arc<dyn NetHost>,
    pub(super) disk: Arc<dyn DiskHost>,
    pub(super) guest: Arc<dyn GuestLink>,
    pub(super) images: Arc<dyn ImageHost>,
    /// None where the configuration turns names off.
    pub(super) names: Option<Arc<dyn NameHost>>,
    pub(super) warm: Arc<dyn WarmHost>,
    pub(super) clock: Arc<dyn Clock>,
}

pub(super) fn raw(config: &Config) -> Result<Raw, DaemonError> {
    match &config.sim {
        Some(sim) => simulated(config, sim),
        None => real(config),
    }
}

fn simulated(config: &Config, sim: &Sim) -> Result<Raw, DaemonError> {
    let mut options = SimOptions::new(config.network.subnet);
    options.boot = sim.boot;
    options.tap_prefix.clone_from(&config.network.tap_prefix);
    for text in &sim.faults {
        let Planned(at, fault) =
            text.parse().map_err(|error| DaemonError::SimFault { source: error })?;
        options.faults.push((at, fault));
    }
    Ok(simulated_on(config, &Arc::new(SimWorld::new(options))))
}

pub(super) fn simulated_on(config: &Config, world: &Arc<SimWorld>) -> Raw {
    Raw {
        hypervisor: Arc::<SimWorld>::clone(world),
        process: Arc::<SimWorld>::clone(world),
        net: Arc::<SimWorld>::clone(world),
        disk: Arc::<SimWorld>::clone(world),
        guest: Arc::<SimWorld>::clone(world),
        images: Arc::<SimWorld>::clone(world),
        names: config.network.dns_listen.map(|_| Arc::<SimWorld>::clone(world) as _),
        warm: Arc::<SimWorld>::clone(world),
        clock: Arc::new(SystemClock),
    }
}

fn real(config: &Config) -> Result<Raw, DaemonError> {
    let helper = HelperClient::new(config.helper_socket.clone());
    let bridge = config.network.bridge.to_string();
    let subnet = config.network.subnet;
    let vmms = VmmConfig {
        qemu_bin: config.qemu_bin.clone(),
        firecracker_bin: config.firecracker_bin.clone(),
    };
    Ok(Raw {
        hypervisor: Arc::new(Vmms::new(vmms, helper.clone())),
        process: Arc::new(HelperProcess::new(helper.clone())),
        net: Arc::new(HelperNet::new(helper.clone(), bridge, subnet)),
        disk: Arc::new(LocalDisks::new(&config.state_dir, &config.run_dir)?.with_helper(helper)),
        guest: Arc::new(agent_link(config)?),
        images: Arc::new(
            LocalImages::new(&config.state_dir, agent_bin(config))?
                .with_limits(config.limits.images)
                .with_registries(config.registries.clone())
                .with_apt_config(config.apt_config.clone()),
        ),
        names: config.network.dns_listen.map(|at| Arc::new(DnsServer::new(at, subnet)) as _),
        warm: Arc::new(LocalWarm::new(&config.state_dir, config.limits.disk_reserve)?),
        clock: Arc::new(SystemClock),
    })
}

/// What guests are told of their owner.
fn agent_link(config: &Config) -> Result<AgentLink, DaemonError> {
    let key = owner_key(&config.ssh_key).map_err(|error| {
        HostError::io("read or make the key", config.ssh_key.display().to_string(), error)
    })?;
    let furniture = Furniture { files: config.file_sync.clone(), git: git_identity() };
    Ok(AgentLink::new(furniture, vec![key]))
}

/// Beside bangerd, unless configured.
pub(super) fn agent_bin(config: &Config) -> PathBuf {
    config.agent_bin.clone().unwrap_or_else(|| {
        let me = std::env::current_exe().unwrap_or_default();
        me.with_file_name("banger-agent")
    })
}

/// What cannot be read counts as little: admission then refuses rather than overcommits.
pub(super) fn facts() -> HostFacts {
    match facts::HostFacts::read() {
        Ok(facts) => HostFacts { cpus: facts.cpus, memory_mib: facts.memory_mib },
        Err(_) => HostFacts { cpus: 1, memory_mib: 512 },
    }
}
