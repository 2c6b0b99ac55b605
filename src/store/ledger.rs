//! The ledger: what each VM holds, or may hold, of the host. Rows come and go with entries of the
//! journal, in one job; see `crate::model::LedgerRow`. Taps have a table of their own, for they are the
//! pool's and only lent.

use heed::RwTxn;

use super::schema::Dbs;
use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::model::{
    Entry, LedgerChange, LedgerRow, OpId, ResourceKind, VmHandles, VmId, VmRecord, may_hold,
};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredLedgerRow {
    V1 { vm: [u8; 16], kind: KindV1, name: String, op: Option<[u8; 16]>, unix_ms: u64 },
}

#[derive(Clone, Copy, Encode, Decode)]
pub(super) enum KindV1 {
    Tap,
    Nat,
    Process,
    Cgroup,
    Jail,
    Device,
    Loop,
    RunDir,
    VmDir,
    Config,
    Memory,
    Leftover,
}

impl Row for LedgerRow {
    type Stored = StoredLedgerRow;
}

impl From<LedgerRow> for StoredLedgerRow {
    fn from(row: LedgerRow) -> Self {
        let LedgerRow { vm, kind, name, op, unix_ms } = row;
        Self::V1 { vm: vm.0, kind: kind.into(), name, op: op.map(|op| op.0), unix_ms }
    }
}

impl TryFrom<StoredLedgerRow> for LedgerRow {
    type Error = BadValue;

    fn try_from(stored: StoredLedgerRow) -> Result<Self, BadValue> {
        let StoredLedgerRow::V1 { vm, kind, name, op, unix_ms } = stored;
        Ok(Self { vm: VmId(vm), kind: kind.into(), name, op: op.map(OpId), unix_ms })
    }
}

impl From<ResourceKind> for KindV1 {
    fn from(kind: ResourceKind) -> Self {
        match kind {
            ResourceKind::Tap => Self::Tap,
            ResourceKind::Nat => Self::Nat,
            ResourceKind::Process => Self::Process,
            ResourceKind::Cgroup => Self::Cgroup,
            ResourceKind::Jail => Self::Jail,
            ResourceKind::Device => Self::Device,
            ResourceKind::Loop => Self::Loop,
            ResourceKind::RunDir => Self::RunDir,
            ResourceKind::VmDir => Self::VmDir,
            ResourceKind::Config => Self::Config,
            ResourceKind::Memory => Self::Memory,
            ResourceKind::Leftover => Self::Leftover,
        }
    }
}

impl From<KindV1> for ResourceKind {
    fn from(stored: KindV1) -> Self {
        match stored {
            KindV1::Tap => Self::Tap,
            KindV1::Nat => Self::Nat,
            KindV1::Process => Self::Process,
            KindV1::Cgroup => Self::Cgroup,
            KindV1::Jail => Self::Jail,
            KindV1::Device => Self::Device,
            KindV1::Loop => Self::Loop,
            KindV1::RunDir => Self::RunDir,
            KindV1::VmDir => Self::VmDir,
            KindV1::Config => Self::Config,
            KindV1::Memory => Self::Memory,
            KindV1::Leftover => Self::Leftover,
        }
    }
}

impl Store {
    pub fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        self.read(|txn, dbs| dbs.ledger.all(txn))
    }

    pub fn ledger_of(&self, vm: VmId) -> Result<Vec<LedgerRow>, StoreError> {
        self.read(|txn, dbs| dbs.ledger.with_prefix(txn, &vm.0))
    }

    /// As [`Store::append`], with what the entries mean for the ledger.
    pub async fn append_with(
        &self,
        op: OpId,
        n: u32,
        entries: Vec<Entry>,
        changes: Vec<LedgerChange>,
    ) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            super::ops::append(txn, dbs, op, n, entries)?;
            changes.into_iter().try_for_each(|change| apply(txn, dbs, change))
        })
        .await
    }

    /// For what no operation of a VM does.
    pub async fn change_ledger(&self, change: LedgerChange) -> Result<(), StoreError> {
        self.write(move |txn, dbs| apply(txn, dbs, change)).await
    }
}

fn apply(txn: &mut RwTxn<'_>, dbs: &Dbs, change: LedgerChange) -> Result<(), StoreError> {
    match change {
        LedgerChange::Made(row) => dbs.ledger.put(txn, &key(row.vm, row.kind), row),
        LedgerChange::Gone(vm, kind) => dbs.ledger.delete(txn, &key(vm, kind)).map(drop),
    }
}

/// A VM has at most one of a kind.
fn key(vm: VmId, kind: ResourceKind) -> [u8; 17] {
    let mut key = [0; 17];
    key[..16].copy_from_slice(&vm.0);
    key[16] = tag(kind);
    key
}

/// As [`KindV1`] counts.
fn tag(kind: ResourceKind) -> u8 {
    KindV1::from(kind) as u8
}

/// The rows of a VM that is older than the ledger.
pub(super) fn fill(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    vm: &VmRecord,
    handles: &VmHandles,
) -> Result<(), StoreError> {
    may_hold(vm, handles).into_iter().try_for_each(|kind| {
        let (name, unix_ms) = (kind.name_of(vm), vm.created_unix_ms);
        let row = LedgerRow { vm: vm.id, kind, name, op: None, unix_ms };
        apply(txn, dbs, LedgerChange::Made(row))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StepEvent;

    #[tokio::test]
    async fn rows_come_and_go_with_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (vm, other, op) = (VmId([1; 16]), VmId([2; 16]), OpId([3; 16]));
        let row = |vm, kind| LedgerRow { vm, kind, name: "n".into(), op: Some(op), unix_ms: 5 };
        let entry = |event| Entry { step: "s".to_owned(), event, unix_ms: 5 };
        let made = [ResourceKind::Nat, ResourceKind::RunDir]
            .map(|kind| LedgerChange::Made(row(vm, kind)))
            .to_vec();
        let begun = store.append_with(op, 0, vec![entry(StepEvent::Started)], made).await;
        begun.unwrap();
        store.change_ledger(LedgerChange::Made(row(other, ResourceKind::Nat))).await.unwrap();
        assert_eq!(store.history(op).unwrap().len(), 1);
        assert_eq!(store.ledger().unwrap().len(), 3);
        let gone = vec![LedgerChange::Gone(vm, ResourceKind::Nat)];
        store.append_with(op, 1, vec![entry(StepEvent::UndoStarted)], gone).await.unwrap();
        assert_eq!(store.ledger_of(vm).unwrap(), [row(vm, ResourceKind::RunDir)]);
        assert_eq!(store.ledger_of(other).unwrap().len(), 1);
    }
}
