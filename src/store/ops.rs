//! Operations: intent, journal, outcome. Ids sort by birth, so the last rows are the newest.

use heed::RwTxn;

use super::schema::Dbs;
use super::{Store, StoreError, events};
use crate::model::{Entry, Event, EventKind, OpId, OpRecord, Outcome};

/// Settled operations that are kept with their journals; older ones go.
const KEEP: u64 = 1000;
/// Pruning waits for so many, so that not every settling prunes.
const SLACK: u64 = 64;

/// The answer to an intent; the same op id never starts twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    Recorded,
    Known(OpRecord),
}

impl Store {
    /// Makes the intent durable before anything is done for it. The same id with another kind or
    /// hash is a conflict.
    pub async fn record_intent(&self, intent: OpRecord) -> Result<Intent, StoreError> {
        self.admit(&intent)?;
        self.write(move |txn, dbs| intend(txn, dbs, intent)).await
    }

    /// Writes the entries `n`, `n + 1`, … of an operation's journal, all or none.
    pub async fn append(&self, op: OpId, n: u32, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.write(move |txn, dbs| append(txn, dbs, op, n, entries)).await
    }

    pub fn history(&self, op: OpId) -> Result<Vec<Entry>, StoreError> {
        self.read(|txn, dbs| dbs.journal.with_prefix(txn, &op.0))
    }

    pub async fn settle(
        &self,
        op: OpId,
        outcome: Outcome,
        ended_unix_ms: u64,
    ) -> Result<(), StoreError> {
        self.write(move |txn, dbs| settle(txn, dbs, op, outcome, ended_unix_ms)).await
    }

    pub fn op(&self, op: OpId) -> Result<Option<OpRecord>, StoreError> {
        self.read(|txn, dbs| dbs.ops.get(txn, &op.0))
    }

    /// At most `limit`, newest first.
    pub fn ops(&self, limit: usize) -> Result<Vec<OpRecord>, StoreError> {
        self.read(|txn, dbs| dbs.ops.last(txn, limit))
    }

    /// Operations without an outcome, oldest first: those that a crash cut short.
    pub fn open_ops(&self) -> Result<Vec<OpRecord>, StoreError> {
        let mut ops = self.read(|txn, dbs| dbs.ops.all(txn))?;
        ops.retain(|op| op.outcome.is_none());
        Ok(ops)
    }
}

pub(super) fn append(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    op: OpId,
    n: u32,
    entries: Vec<Entry>,
) -> Result<(), StoreError> {
    for (n, entry) in (n..).zip(entries) {
        let key = [op.0.as_slice(), &n.to_be_bytes()].concat();
        dbs.journal.put(txn, &key, entry)?;
    }
    Ok(())
}

pub(super) fn intend(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    intent: OpRecord,
) -> Result<Intent, StoreError> {
    let id = intent.id;
    if let Some(known) = dbs.ops.get(txn, &id.0)? {
        let same = known.kind == intent.kind && known.request_hash == intent.request_hash;
        return if same { Ok(Intent::Known(known)) } else { Err(StoreError::Conflict(id)) };
    }
    let kind = EventKind::OpStarted { kind: intent.kind, subject: intent.subject.clone() };
    tell(txn, dbs, &intent, intent.started_unix_ms, kind)?;
    dbs.ops.put(txn, &id.0, intent)?;
    Ok(Intent::Recorded)
}

pub(super) fn settle(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    op: OpId,
    outcome: Outcome,
    ended_unix_ms: u64,
) -> Result<(), StoreError> {
    if let Some(record) = dbs.ops.get(txn, &op.0)? {
        if record.outcome.is_none() {
            let kind = EventKind::OpEnded { outcome: outcome.clone() };
            tell(txn, dbs, &record, ended_unix_ms, kind)?;
        }
        let outcome = Some(outcome);
        let ended_unix_ms = Some(ended_unix_ms);
        dbs.ops.put(txn, &op.0, OpRecord { outcome, ended_unix_ms, ..record })?;
    }
    prune(txn, dbs)
}

fn tell(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    op: &OpRecord,
    unix_ms: u64,
    kind: EventKind,
) -> Result<(), StoreError> {
    events::append(txn, dbs, Event { seq: 0, unix_ms, op_id: Some(op.id), vm: op.vm, kind })
}

/// Forgets the oldest settled operations. One without an outcome is never forgotten.
fn prune(txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError> {
    let count = dbs.ops.raw.len(txn)?;
    if count < KEEP + SLACK {
        return Ok(());
    }
    let mut excess = count - KEEP;
    for op in dbs.ops.all(txn)? {
        if excess == 0 {
            break;
        }
        if op.outcome.is_some() {
            dbs.journal.delete_prefix(txn, &op.id.0)?;
            dbs.ops.delete(txn, &op.id.0)?;
            excess -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OpKind, StepEvent};
    use crate::store::store::QUEUE;

    fn op(n: u64, hash: u64) -> OpRecord {
        OpRecord {
            id: OpId::from_parts(n, [1; 10]),
            kind: OpKind::StartVm,
            vm: None,
            subject: "web".to_owned(),
            request_hash: hash,
            started_unix_ms: n,
            ended_unix_ms: None,
            outcome: None,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn one_op_id_starts_once() {
        let (_dir, store) = store();
        assert_eq!(store.record_intent(op(1, 7)).await.unwrap(), Intent::Recorded);
        store.settle(op(1, 7).id, Outcome::Done, 9).await.unwrap();
        let Intent::Known(record) = store.record_intent(op(1, 7)).await.unwrap() else {
            panic!("started twice")
        };
        assert_eq!((record.outcome, record.ended_unix_ms), (Some(Outcome::Done), Some(9)));
        assert!(matches!(store.record_intent(op(1, 8)).await, Err(StoreError::Conflict(_))));
        let other = OpRecord { kind: OpKind::StopVm, ..op(1, 7) };
        assert!(matches!(store.record_intent(other).await, Err(StoreError::Conflict(_))));
    }

    #[tokio::test]
    async fn journal_reads_back_in_order() {
        let (_dir, store) = store();
        let entry = |event, unix_ms| Entry { step: "tap".to_owned(), event, unix_ms };
        let id = op(1, 1).id;
        let entries: Vec<_> =
            (0..300).map(|n| entry(StepEvent::Succeeded(n.to_string()), n)).collect();
        store.append(id, 0, entries[..2].to_vec()).await.unwrap();
        store.append(id, 2, entries[2..].to_vec()).await.unwrap();
        store.append(op(2, 1).id, 0, vec![entry(StepEvent::Started, 0)]).await.unwrap();
        assert_eq!(store.history(id).unwrap(), entries);
    }

    #[tokio::test]
    async fn old_settled_ops_go_open_ones_stay() {
        let (_dir, store) = store();
        store.record_intent(op(0, 0)).await.unwrap(); // never settled
        let settled: Vec<u64> = (1..=KEEP + SLACK).collect();
        for batch in settled.chunks(QUEUE) {
            let whole = batch.iter().map(|n| async {
                store.record_intent(op(*n, 0)).await?;
                let started =
                    Entry { step: "tap".to_owned(), event: StepEvent::Started, unix_ms: 0 };
                store.append(op(*n, 0).id, 0, vec![started]).await?;
                store.settle(op(*n, 0).id, Outcome::Done, *n).await
            });
            let ends = futures::future::join_all(whole).await;
            assert!(ends.iter().all(Result::is_ok));
        }
        let left = store.ops(usize::MAX).unwrap();
        assert!(left.len() < usize::try_from(KEEP + SLACK).unwrap());
        assert_eq!(left[0].started_unix_ms, KEEP + SLACK);
        assert_eq!(store.open_ops().unwrap(), [op(0, 0)]);
        assert_eq!(store.history(op(1, 0).id).unwrap(), []);
        assert_eq!(store.history(op(KEEP, 0).id).unwrap().len(), 1);
        assert_eq!(store.ops(2).unwrap().len(), 2);
    }
}
