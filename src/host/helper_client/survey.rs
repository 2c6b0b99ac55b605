//! What the helper sees of VMs, page by page.

use super::client::{HelperClient, unexpected};
use crate::model::{Code, HostSeen, OpId, ResourceKind, VmId};
use crate::ports::HostError;
use crate::wire::helper::{HelperBody, HelperOk, HostReport, VmReport};

/// Processes, cgroups, jails, devices and loops. One that is too old to know the request is named.
pub(in crate::host) async fn survey(
    client: &HelperClient,
    op: OpId,
) -> Result<HostSeen, HostError> {
    let mut seen = HostSeen::default();
    let mut after = None;
    loop {
        let report = page(client, op, after).await?;
        if !report.cgroups {
            seen.blind.insert(ResourceKind::Cgroup);
        }
        for entry in &report.loops {
            seen.add(ResourceKind::Loop, entry.path.clone(), None);
        }
        for report in &report.vms {
            add(&mut seen, report);
        }
        match report.vms.last() {
            Some(last) if report.more => after = Some(last.vm),
            _ => return Ok(seen),
        }
    }
}

async fn page(
    client: &HelperClient,
    op: OpId,
    after: Option<[u8; 16]>,
) -> Result<HostReport, HostError> {
    match client.call(op, HelperBody::SurveyHost { after }).await {
        Ok(HelperOk::Host(report)) => Ok(report),
        Ok(other) => Err(unexpected("survey-host", &other)),
        Err(error) if error.code == Code::Protocol && error.hints.is_empty() => {
            let version = client.status(op).await.map_or_else(|_| "?".to_owned(), |it| it.version);
            let own = env!("CARGO_PKG_VERSION");
            let why = format!("it is of version {version} and does not know the request");
            Err(HostError::new(Code::Protocol, "ask the helper for", "survey-host")
                .because(why)
                .hint(format!(
                    "this daemon is of version {own}: install both of one, restart both"
                )))
        }
        Err(error) => Err(error),
    }
}

fn add(seen: &mut HostSeen, report: &VmReport) {
    let VmReport { vm, process, jailed, cgroup, device, marked } = *report;
    let vm = VmId(vm);
    let things = if marked { &mut seen.things } else { &mut seen.unmarked };
    for (kind, there) in [
        (ResourceKind::Process, process.is_some()),
        (ResourceKind::Jail, jailed),
        (ResourceKind::Cgroup, cgroup),
    ] {
        if there {
            things.insert(crate::model::Thing { kind, name: vm.to_string(), vm: Some(vm) });
        }
    }
    if device {
        // Its name says whose it is.
        seen.add(ResourceKind::Device, vm.to_string(), Some(vm));
    }
}
