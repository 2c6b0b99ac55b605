//! Which kernels there are, which of them VMs boot, and whether they can.

use super::answers::parts;
use super::house::House;
use super::session::{Refusal, Response, artefact};
use super::shelves::matches;
use crate::model::{
    Code, Failure, KernelFeature, KernelRecord, Machine, OpId, PruneVerdict, VmSpec, VmmKind,
    lack_text, lacking, prune,
};
use crate::store::Store;
use crate::wire::reply::{Answer, DefaultKernelInfo, ImageNameInfo, KernelUsageInfo};

pub(super) fn kernels(house: &House, only: Option<&str>) -> Result<Response, Refusal> {
    let vms = house.store.vms().map_err(|error| Failure::from(&error))?;
    let users = |digest| {
        let uses = vms.iter().filter(|vm| vm.kernel == digest);
        uses.map(|vm| vm.spec.name.to_string()).collect::<Vec<_>>()
    };
    let rows = found(house, only)?;
    let rows: Vec<_> = rows.iter().map(|kernel| (kernel, users(kernel.digest)).into()).collect();
    Ok(parts(rows, Answer::Kernels))
}

fn found(house: &House, only: Option<&str>) -> Result<Vec<KernelRecord>, Failure> {
    let mut rows = house.store.kernels().map_err(|error| Failure::from(&error))?;
    rows.retain(|row| only.is_none_or(|name| matches(name, row.name.as_str(), &row.digest)));
    match (only, rows.is_empty()) {
        (Some(name), true) => Err(no_kernel(name)),
        _ => Ok(rows),
    }
}

fn no_kernel(name: &str) -> Failure {
    Failure::new(Code::NotFound, format!("no kernel is named {name:?}"))
        .hint("`banger kernel list` shows what there is")
}

pub(super) fn find(house: &House, name: &str) -> Result<KernelRecord, Failure> {
    found(house, Some(name))?.into_iter().next().ok_or_else(|| no_kernel(name))
}

/// All options, also those of which nothing is known.
pub(super) fn features(house: &House, name: &str) -> Result<Response, Refusal> {
    let kernel = find(house, name)?;
    let known = house.store.kernel_features(kernel.digest);
    let known = known.map_err(|error| Failure::from(&error))?;
    let rows = KernelFeature::ALL.map(|feature| (feature, known.of(feature)).into());
    Ok(Response::Now(Answer::KernelFeatures(rows.into())))
}

/// Which kernel VMs boot whose owners name none, and who decided that.
fn decided(house: &House) -> Result<Option<DefaultKernelInfo>, Failure> {
    let failed = |error: crate::store::StoreError| Failure::from(&error);
    let info = |name: String, decided_by: &str, exists| {
        Some(DefaultKernelInfo { name, decided_by: decided_by.to_owned(), exists })
    };
    let configured = &house.config.defaults.kernel;
    if !configured.is_empty() {
        let exists = house.store.kernel(configured).map_err(failed)?.is_some();
        return Ok(info(configured.clone(), "configuration", exists));
    }
    if let Some(set) = house.store.default_kernel().map_err(failed)? {
        return Ok(info(set.name.to_string(), "set", true));
    }
    let newest = house.store.kernel_to_boot("").map_err(failed)?;
    Ok(newest.and_then(|newest| info(newest.name.to_string(), "newest", true)))
}

pub(super) fn default(house: &House) -> Result<Response, Refusal> {
    Ok(Response::Now(Answer::DefaultKernel(decided(house)?.map(Box::new))))
}

pub(super) async fn set_default(house: &House, name: Option<String>) -> Result<Response, Refusal> {
    let configured = &house.config.defaults.kernel;
    if !configured.is_empty() {
        let message = format!("set the default kernel: the configuration names {configured}");
        let failure = Failure::new(Code::Refused, message);
        return Err(failure.hint("change default_kernel_name there, or take it out").into());
    }
    let name = name.as_deref().map(artefact).transpose()?;
    let set = house.store.set_default_kernel(name).await;
    set.map_err(|error| Failure::from(&error))?;
    default(house)
}

/// Contents in the order of their first names.
pub(super) async fn usage(house: &House, op_id: OpId) -> Result<Response, Refusal> {
    let failed = |error: crate::store::StoreError| Failure::from(&error);
    let kernels = house.store.kernels().map_err(failed)?;
    let vms = house.store.vms().map_err(failed)?;
    let files = house.ports.images.kernel_usage(op_id).await;
    let files = files.map_err(|error| Failure::from(&error))?;
    let default = decided(house)?.map_or_else(String::new, |default| default.name);
    let mut rows: Vec<KernelUsageInfo> = vec![];
    for PruneVerdict { row: kernel, kept } in prune(kernels, &vms, &default) {
        let name = ImageNameInfo { name: kernel.name.to_string(), kept_because: kept };
        let digest = kernel.digest.to_string();
        if let Some(row) = rows.iter_mut().find(|row| row.digest == digest) {
            row.names.push(name);
            continue;
        }
        let users = vms.iter().filter(|vm| vm.kernel == kernel.digest);
        let taken = files.get(&kernel.digest).copied().unwrap_or_default();
        rows.push(KernelUsageInfo {
            digest,
            names: vec![name],
            used_by: users.map(|vm| vm.spec.name.to_string()).collect(),
            file_bytes: taken.files,
            initrd_bytes: taken.initrds,
        });
    }
    Ok(parts(rows, Answer::KernelUsage))
}

/// Refuses what is known not to come up. Without such a kernel the reservation will say so.
pub(super) fn admit(store: &Store, spec: &VmSpec, vmm: VmmKind) -> Result<(), Failure> {
    let kernel = store.kernel_to_boot(&spec.kernel).map_err(|error| Failure::from(&error))?;
    let Some(kernel) = kernel else { return Ok(()) };
    let features = store.kernel_features(kernel.digest).map_err(|error| Failure::from(&error))?;
    let lacks = lacking(&features, Machine::here(vmm, spec.root.backend));
    if lacks.is_empty() {
        return Ok(());
    }
    let (vm, name) = (&spec.name, &kernel.name);
    let message = format!("create {vm}: kernel {:?} {}", name.as_str(), lack_text(&lacks));
    Err(Failure::new(Code::Refused, message)
        .hint("take another kernel (--kernel); `banger kernel list` shows what there is")
        .hint(format!("`banger kernel show {name}` shows what it has")))
}
