//! What there is of VMs on this host, whoever started them: processes, cgroups, jails, devices, and
//! loops that stay. Looks only; what is found is found by names and marks of ours.
//!
//! A process or a cgroup may be that of another daemon of the same owner. It is told to be this
//! helper's by a mark: the state directory, which the cgroup carries and a command line names.

use std::collections::BTreeMap;

use super::cgroup::Cgroups;
use super::config::Config;
use super::error::Trouble;
use super::{loopdev, process, snapshot};
use crate::model::{Code, VmId};
use crate::wire::helper::{HostReport, VmReport, WireSeen};

/// So many fit a frame with room to spare.
const PAGE: usize = 500;
const MAX_LOOPS: usize = 64;

/// Those whose ids come after `after`.
pub(super) fn look(
    config: &Config,
    cgroups: Option<&Cgroups>,
    after: Option<VmId>,
) -> Result<HostReport, Trouble> {
    let mut vms = BTreeMap::new();
    for (vm, marked) in cgroups.map(Cgroups::list).unwrap_or_default() {
        let report = of(&mut vms, vm);
        (report.cgroup, report.marked) = (true, marked);
    }
    for found in process::vmms(config) {
        let report = of(&mut vms, found.vm);
        report.process = Some(WireSeen { pid: found.pid, start_ticks: found.start_ticks });
        report.jailed |= found.jailed;
        report.marked |= found.marked;
    }
    match snapshot::list(config) {
        Ok(devices) => devices.into_iter().for_each(|vm| of(&mut vms, vm).device = true),
        // A host without device-mapper has none.
        Err(trouble) if trouble.code == Code::NotFound => {}
        Err(trouble) => return Err(trouble),
    }
    let loops = match after {
        None => loopdev::list_lasting(config)?.into_iter().take(MAX_LOOPS).collect(),
        Some(_) => vec![],
    };
    let mut rest = vms.into_values().filter(|report| after.is_none_or(|vm| report.vm > vm.0));
    let vms: Vec<_> = rest.by_ref().take(PAGE).collect();
    Ok(HostReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cgroups: cgroups.is_some(),
        more: rest.next().is_some(),
        vms,
        loops,
    })
}

fn of(vms: &mut BTreeMap<VmId, VmReport>, vm: VmId) -> &mut VmReport {
    vms.entry(vm).or_insert(VmReport {
        vm: vm.0,
        process: None,
        jailed: false,
        cgroup: false,
        device: false,
        marked: false,
    })
}
