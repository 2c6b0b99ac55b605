//! What VMs take of the host, looked at when somebody asks; nothing is kept.

use futures::{StreamExt, TryStreamExt};

use super::answers::parts;
use super::house::House;
use super::session::{Refusal, Response};
use super::supervisor::ListVms;
use crate::model::{Failure, OpId, VmState, VmView, chain};
use crate::ports::HostError;
use crate::wire::reply::{Answer, StatsInfo};

/// More at once would only wait for the disk.
const AT_ONCE: usize = 8;

pub(super) async fn stats(house: &House, op: OpId, vms: &[String]) -> Result<Response, Refusal> {
    let views = match vms {
        [] => {
            let all = house.supervisor.call(house.ctx(op), ListVms).await?;
            all.into_iter().filter(runs).collect()
        }
        names => {
            let mut views: Vec<VmView> = vec![];
            for name in names {
                let view = house.find(op, name).await?.view;
                if views.iter().all(|other| other.record.id != view.record.id) {
                    views.push(view);
                }
            }
            views
        }
    };
    let rows = futures::stream::iter(views).map(|view| one(house, op, view)).buffered(AT_ONCE);
    let rows: Vec<StatsInfo> = rows.try_collect().await?;
    Ok(parts(rows, Answer::Stats))
}

fn runs(view: &VmView) -> bool {
    view.record.state == VmState::Running
}

async fn one(house: &House, op: OpId, view: VmView) -> Result<StatsInfo, Failure> {
    let VmView { record, handles, .. } = &view;
    let (vm, ports) = (record.id, &house.ports);
    let failed = |error: HostError| Failure::from(&error);
    let disks = ports.disk.usage(vm).await.map_err(failed)?;
    let process = match &handles.process {
        Some(process) => ports.process.usage(vm, process).await.map_err(failed)?,
        None => None,
    };
    let devices = match runs(&view) {
        true => ports.hypervisor.counters(op, &ports.disk.paths(vm)).await,
        false => Ok(None),
    };
    // A VMM that is slow to answer hides its own numbers, not those that the kernel has.
    let devices = devices.unwrap_or_else(|error| {
        tracing::warn!(op_id = %op, vm_id = %vm, error = %chain(&error), "devices not counted");
        None
    });
    Ok(StatsInfo {
        id: vm.to_string(),
        name: record.spec.name.to_string(),
        state: record.state.to_string(),
        collected_unix_ms: ports.clock.unix_ms(),
        vcpu: record.spec.vcpu,
        memory_mib: record.spec.memory_mib,
        pid: process.and(handles.process.as_ref()).map(|process| process.pid),
        cpu_us: process.map(|process| process.cpu_us),
        resident_bytes: process.map(|process| process.resident_bytes),
        cgroup_bytes: process.and_then(|process| process.cgroup_bytes),
        root_disk_bytes: disks.root_bytes,
        work_disk_bytes: disks.work_bytes,
        devices: devices.map(Into::into),
    })
}
