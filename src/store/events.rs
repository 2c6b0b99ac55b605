//! The tail of events: numbered, durable, capped.
//!
//! ```text
//! publish ──> bounded queue ──┐
//! intents, outcomes, states ──┴─> the writer's next commit ──> numbers ──> whoever waits for them
//! ```
//!
//! What a job makes true (an operation begins or ends, a VM's state changes) is an event of that
//! job's own transaction. All else waits in the queue for a commit that happens anyway, or for
//! [`LINGER`]. A number is given when the row is written, so numbers have no gap, whatever dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel as channel;
use heed::RwTxn;
use tokio::sync::watch;

use super::schema::Dbs;
use super::{Store, StoreError};
use crate::model::{Event, EventKind, OpId};

/// So many wait for the writer; what comes then is counted and told by an event of its own.
const QUEUE: usize = 4096;
/// How long an event waits for a commit that it can go with.
pub(super) const LINGER: Duration = Duration::from_millis(100);
/// Until the configuration says otherwise.
const KEEP: u64 = 100_000;
/// So many more than were written are removed by one commit, when fewer are to be kept.
const SLACK: u64 = 64;

/// What publishers and readers hold.
#[derive(Clone, Debug)]
pub(super) struct Publishing {
    queue: channel::Sender<Event>,
    lost: Arc<AtomicU64>,
    keep: Arc<AtomicU64>,
    written: watch::Receiver<u64>,
}

/// What the writer holds.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) queue: channel::Receiver<Event>,
    lost: Arc<AtomicU64>,
    keep: Arc<AtomicU64>,
    written: watch::Sender<u64>,
}

pub(super) fn channel(last: u64) -> (Publishing, Published) {
    let (sender, queue) = channel::bounded(QUEUE);
    let (lost, keep) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(KEEP)));
    let (written, seen) = watch::channel(last);
    let publishing = Publishing {
        queue: sender,
        lost: Arc::clone(&lost),
        keep: Arc::clone(&keep),
        written: seen,
    };
    (publishing, Published { queue, lost, keep, written })
}

impl Published {
    /// What waits, oldest first, and how many came while the queue was full.
    pub(super) fn take(&self) -> (Vec<Event>, u64) {
        (self.queue.try_iter().take(QUEUE).collect(), self.lost.swap(0, Ordering::Relaxed))
    }

    /// They could not be written: the next commit says that they are missing.
    pub(super) fn lose(&self, count: usize, lost: u64) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.lost.fetch_add(count.saturating_add(lost), Ordering::Relaxed);
    }

    /// How many there are above the cap.
    pub(super) fn excess(&self, txn: &heed::RoTxn<'_>, dbs: &Dbs) -> heed::Result<u64> {
        let keep = self.keep.load(Ordering::Relaxed).max(1);
        Ok(dbs.events.raw.len(txn)?.saturating_sub(keep))
    }

    /// Removes the oldest above the cap, as many as `added` and a few.
    pub(super) fn prune(&self, txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError> {
        let added = last(txn, dbs)?.saturating_sub(*self.written.borrow());
        for _ in 0..self.excess(txn, dbs)?.min(added + SLACK) {
            let Some((key, _)) = dbs.events.raw.first(txn)? else { break };
            let key = key.to_vec();
            dbs.events.delete(txn, &key)?;
        }
        Ok(())
    }

    /// Tells whoever waits that events up to this one are durable.
    pub(super) fn announce(&self, last: u64) {
        self.written.send_if_modified(|written| {
            let more = last > *written;
            *written = last.max(*written);
            more
        });
    }
}

/// The number of the newest event; 0 if there has been none. The newest is never removed.
pub(super) fn last(txn: &heed::RoTxn<'_>, dbs: &Dbs) -> heed::Result<u64> {
    let number = |key: &[u8]| key.try_into().map_or(0, u64::from_be_bytes);
    Ok(dbs.events.raw.last(txn)?.map_or(0, |(key, _)| number(key)))
}

pub(super) fn newest(txn: &heed::RoTxn<'_>, dbs: &Dbs) -> Result<Option<Event>, StoreError> {
    dbs.events.last_where(txn, |_| true)
}

/// Numbers an event and writes it, in the transaction of what it tells of.
pub(super) fn append(txn: &mut RwTxn<'_>, dbs: &Dbs, event: Event) -> Result<(), StoreError> {
    let seq = last(txn, dbs)? + 1;
    dbs.events.put(txn, &seq.to_be_bytes(), Event { seq, ..event })
}

impl Store {
    /// Hands an event over to be written soon. Never waits and never fails: when the queue is full
    /// the event is lost and counted, and an event tells how many were.
    pub fn publish(&self, event: Event) {
        if self.events.queue.try_send(event).is_err() {
            self.events.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events are kept, at least one.
    pub fn keep_events(&self, count: u64) {
        self.events.keep.store(count, Ordering::Relaxed);
    }

    /// The number of the newest durable event; 0 if there has been none.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        *self.events.written.borrow()
    }

    /// At most `limit` durable events with this number or a higher one, oldest first.
    pub fn events(&self, from: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|txn, dbs| dbs.events.from(txn, &from.to_be_bytes(), limit))
    }

    /// The number of the event that says that this operation began, if it is kept.
    pub fn beginning_of(&self, op: OpId) -> Result<Option<u64>, StoreError> {
        let is_it = |event: &Event| {
            event.op_id == Some(op) && matches!(event.kind, EventKind::OpStarted { .. })
        };
        self.read(|txn, dbs| Ok(dbs.events.last_where(txn, is_it)?.map(|event| event.seq)))
    }

    /// Waits until there are durable events after this one. False: the writer is gone.
    pub async fn event_after(&self, seq: u64) -> bool {
        self.events.written.clone().wait_for(|written| *written > seq).await.is_ok()
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
