//! VM records and handles. A record's name and address have index rows, written and removed in
//! the transaction that writes and removes the record.

use heed::RwTxn;

use super::ops;
use super::schema::Dbs;
use super::{Intent, Store, StoreError, events, workspaces};
use crate::model::{Event, EventKind, Name, OpId, OpRecord, Outcome, VmHandles, VmId, VmRecord};

impl Store {
    pub fn vms(&self) -> Result<Vec<VmRecord>, StoreError> {
        self.read(|txn, dbs| dbs.vms.all(txn))
    }

    pub fn vm(&self, id: VmId) -> Result<Option<VmRecord>, StoreError> {
        self.read(|txn, dbs| dbs.vms.get(txn, &id.0))
    }

    /// Whether there is such a VM. What cannot be read counts as there.
    #[must_use]
    pub fn has_vm(&self, id: VmId) -> bool {
        self.read(|txn, dbs| dbs.vms.has(txn, &id.0)).unwrap_or(true)
    }

    pub fn vm_named(&self, name: &Name) -> Result<Option<VmRecord>, StoreError> {
        self.read(|txn, dbs| match dbs.vm_names.get(txn, name.as_str().as_bytes())? {
            Some(id) => dbs.vms.get(txn, id),
            None => Ok(None),
        })
    }

    /// Changes a record; its id, name and address are fixed. Returns it as it is now. `unix_ms` is
    /// when: it is in the event that tells of another state.
    pub async fn update_vm(
        &self,
        id: VmId,
        unix_ms: u64,
        change: impl FnOnce(&mut VmRecord) + Send + 'static,
    ) -> Result<VmRecord, StoreError> {
        self.write(move |txn, dbs| {
            let mut record = existing(txn, dbs, id)?;
            change(&mut record);
            replace(txn, dbs, id, record.clone(), (None, unix_ms))?;
            Ok(record)
        })
        .await
    }

    /// Records the intent and the record that the VM enters the operation with, in one job. An
    /// intent that is known changes nothing.
    pub async fn begin_vm(&self, intent: OpRecord, record: VmRecord) -> Result<Intent, StoreError> {
        self.write(move |txn, dbs| {
            let (op, unix_ms) = (intent.id, intent.started_unix_ms);
            let answer = ops::intend(txn, dbs, intent)?;
            if answer == Intent::Recorded {
                replace(txn, dbs, record.id, record, (Some(op), unix_ms))?;
            }
            Ok(answer)
        })
        .await
    }

    /// The outcome of an operation and what became of its VM, in one job. Handles that hold
    /// nothing have no row.
    pub async fn settle_vm(
        &self,
        op: OpId,
        outcome: Outcome,
        ended_unix_ms: u64,
        record: VmRecord,
        handles: VmHandles,
    ) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            replace(txn, dbs, record.id, record.clone(), (Some(op), ended_unix_ms))?;
            ops::settle(txn, dbs, op, outcome, ended_unix_ms)?;
            if handles == VmHandles::default() {
                dbs.handles.delete(txn, &record.id.0)?;
            } else {
                dbs.handles.put(txn, &record.id.0, handles)?;
            }
            Ok(())
        })
        .await
    }

    /// Removes the VM's record, handles, name and address, and settles the operation that did it.
    /// A VM that is gone already is no error.
    pub async fn delete_vm(
        &self,
        op: OpId,
        outcome: Outcome,
        ended_unix_ms: u64,
        id: VmId,
    ) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            ops::settle(txn, dbs, op, outcome, ended_unix_ms)?;
            if let Some(record) = dbs.vms.get(txn, &id.0)? {
                dbs.vm_names.delete(txn, record.spec.name.as_str().as_bytes())?;
                dbs.vm_addresses.delete(txn, &record.address.octets())?;
                dbs.vms.delete(txn, &id.0)?;
            }
            dbs.handles.delete(txn, &id.0)?;
            dbs.image_uses.delete(txn, &id.0)?;
            workspaces::remove(txn, dbs, id)
        })
        .await
    }

    pub fn handles(&self, id: VmId) -> Result<Option<VmHandles>, StoreError> {
        self.read(|txn, dbs| dbs.handles.get(txn, &id.0))
    }

    pub async fn put_handles(&self, id: VmId, handles: VmHandles) -> Result<(), StoreError> {
        self.write(move |txn, dbs| dbs.handles.put(txn, &id.0, handles)).await
    }

    pub async fn clear_handles(&self, id: VmId) -> Result<(), StoreError> {
        self.write(move |txn, dbs| dbs.handles.delete(txn, &id.0).map(drop)).await
    }
}

/// Writes the index rows of a record.
pub(super) fn index(txn: &mut RwTxn<'_>, dbs: &Dbs, record: &VmRecord) -> Result<(), StoreError> {
    dbs.vm_names.put(txn, record.spec.name.as_str().as_bytes(), &record.id.0)?;
    Ok(dbs.vm_addresses.put(txn, &record.address.octets(), &record.id.0)?)
}

fn existing(txn: &RwTxn<'_>, dbs: &Dbs, id: VmId) -> Result<VmRecord, StoreError> {
    let found = dbs.vms.get(txn, &id.0)?;
    found.ok_or_else(|| StoreError::NotFound { what: "VM", name: id.short() })
}

/// Another state is told, with the operation that brought it.
fn replace(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    id: VmId,
    record: VmRecord,
    (op_id, unix_ms): (Option<OpId>, u64),
) -> Result<(), StoreError> {
    let kept = existing(txn, dbs, id)?;
    let identity = |r: &VmRecord| (r.id, r.spec.name.clone(), r.address);
    if identity(&kept) != identity(&record) {
        return Err(StoreError::Identity(id));
    }
    if kept.state != record.state {
        let kind = EventKind::VmChanged { name: record.spec.name.to_string(), state: record.state };
        events::append(txn, dbs, Event { seq: 0, unix_ms, op_id, vm: Some(id), kind })?;
    }
    dbs.vms.put(txn, &id.0, record)
}
