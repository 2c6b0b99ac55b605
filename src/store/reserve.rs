//! Reserving everything that a new VM needs to be the only one of its kind, in one job: two
//! creates at once can share neither name nor address, and none is half reserved.

use std::net::Ipv4Addr;

use heed::RwTxn;

use super::schema::Dbs;
use super::{Intent, Store, StoreError, default_kernel, events, image_configs, ops, vms};
use crate::model::{
    Event, EventKind, OpRecord, RestartHistory, Subnet, VmId, VmKeys, VmRecord, VmSpec, VmState,
    Wanted,
};

/// A VM that has everything but what the store decides: address and digests.
#[derive(Clone, Debug)]
pub struct VmDraft {
    pub id: VmId,
    /// An empty kernel name takes the default; the record then names it.
    pub spec: VmSpec,
    pub keys: VmKeys,
    pub created_unix_ms: u64,
    pub subnet: Subnet,
    pub wanted: Wanted,
    /// The program of its image runs from every start on.
    pub runs: bool,
    /// The create operation.
    pub intent: OpRecord,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    New(Box<VmRecord>),
    /// The operation is known; what came of it is in its record.
    Known(OpRecord),
}

impl Store {
    /// Reserves name and the lowest free address, pins image and kernel by digest, and records the
    /// intent. The same operation asked for again is answered with what is known of it.
    pub async fn reserve_vm(&self, draft: VmDraft) -> Result<Reserved, StoreError> {
        self.admit(&draft.intent)?;
        self.write(move |txn, dbs| {
            if let Intent::Known(known) = ops::intend(txn, dbs, draft.intent.clone())? {
                return Ok(Reserved::Known(known));
            }
            if dbs.vms.get(txn, &draft.id.0)?.is_some() {
                return Err(StoreError::IdTaken(draft.id));
            }
            refuse_taken_name(txn, dbs, &draft)?;
            let image = dbs.images.get(txn, draft.spec.image.as_bytes())?;
            let image = image.ok_or_else(|| not_found("image", &draft.spec.image))?.digest;
            let name = &draft.spec.kernel;
            let kernel = default_kernel::to_boot(txn, dbs, name)?;
            let kernel = kernel.ok_or_else(|| not_found("kernel", name))?;
            let record = VmRecord {
                id: draft.id,
                address: free_address(txn, dbs, draft.subnet)?,
                spec: VmSpec { kernel: kernel.name.to_string(), ..draft.spec },
                state: VmState::Created,
                image,
                kernel: kernel.digest,
                keys: draft.keys,
                created_unix_ms: draft.created_unix_ms,
                last_failure: None,
                last_exit: None,
                wanted: draft.wanted,
                restarts: RestartHistory::default(),
            };
            dbs.vms.put(txn, &record.id.0, record.clone())?;
            vms::index(txn, dbs, &record)?;
            image_configs::take(txn, dbs, record.id, &record.spec.image, draft.runs)?;
            let (op_id, vm) = (Some(draft.intent.id), Some(record.id));
            let kind =
                EventKind::VmChanged { name: record.spec.name.to_string(), state: record.state };
            let event = Event { seq: 0, unix_ms: record.created_unix_ms, op_id, vm, kind };
            events::append(txn, dbs, event)?;
            Ok(Reserved::New(Box::new(record)))
        })
        .await
    }
}

fn not_found(what: &'static str, name: &str) -> StoreError {
    StoreError::NotFound { what, name: name.to_owned() }
}

fn refuse_taken_name(txn: &RwTxn<'_>, dbs: &Dbs, draft: &VmDraft) -> Result<(), StoreError> {
    let name = &draft.spec.name;
    match dbs.vm_names.get(txn, name.as_str().as_bytes())? {
        None => Ok(()),
        Some(id) => {
            let holder = VmId(id.try_into().unwrap_or_default());
            Err(StoreError::NameTaken { name: name.clone(), holder })
        }
    }
}

/// Walks the subnet and the sorted taken addresses side by side.
fn free_address(txn: &RwTxn<'_>, dbs: &Dbs, subnet: Subnet) -> Result<Ipv4Addr, StoreError> {
    let first = subnet.gateway().octets();
    let range = (std::ops::Bound::Excluded(first.as_slice()), std::ops::Bound::Unbounded);
    let mut taken = dbs.vm_addresses.range(txn, &range)?;
    for guest in subnet.guests() {
        match taken.next().transpose()? {
            Some((address, _)) if address == guest.octets() => {}
            // The first gap: keys are sorted, so this address is not further on.
            _ => return Ok(guest),
        }
    }
    Err(StoreError::AddressPoolFull(subnet))
}
