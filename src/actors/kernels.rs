//! Which kernels there are, which of them VMs boot, and whether they can.

use super::answers::parts;
use super::house::House;
use super::session::{Refusal, Response};
use super::shelves::matches;
use crate::model::{
    Code, Failure, KernelFeature, KernelRecord, Machine, VmSpec, VmmKind, lack_text, lacking,
};
use crate::store::Store;
use crate::wire::reply::Answer;

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
