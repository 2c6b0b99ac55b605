//! Telling what happened, and reading it: from the store, where events are numbered and durable.
//!
//! ```text
//! operations, actors ──publish──> store's queue ──> table ──read on──> a tail per reader
//! ```
//!
//! Publishing never waits and never fails the publisher. A reader has no queue that could fill: it
//! reads on from its place when there is more, so a slow one falls behind and loses nothing, as long
//! as what it has not read is kept. Nothing may be decided from events; they are for watching.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{Event, EventKind, OpId, VmId};
use crate::ports::Clock;
use crate::store::{Store, StoreError};

/// So many are read in one transaction.
const BATCH: usize = 256;

/// What publishers hold.
#[derive(Clone, Debug)]
pub struct EventSink {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl EventSink {
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    pub fn publish(&self, op_id: Option<OpId>, vm: Option<VmId>, kind: EventKind) {
        self.store.publish(Event { seq: 0, unix_ms: self.clock.unix_ms(), op_id, vm, kind });
    }
}

/// One reader's place in the events.
#[derive(Debug)]
pub(super) struct Tail {
    store: Store,
    next: u64,
    read: VecDeque<Event>,
}

impl Tail {
    /// From this number on; those that are kept no more are passed over.
    pub(super) fn from(store: &Store, seq: u64) -> Self {
        Self { store: store.clone(), next: seq.max(1), read: VecDeque::new() }
    }

    /// What is told after this moment.
    pub(super) fn from_now(store: &Store) -> Self {
        Self::from(store, store.last_event() + 1)
    }

    /// The next one that is durable already.
    pub(super) fn ready(&mut self) -> Result<Option<Event>, StoreError> {
        if self.read.is_empty() {
            if self.store.last_event() < self.next {
                return Ok(None);
            }
            self.read = self.store.events(self.next, BATCH)?.into();
        }
        let event = self.read.pop_front();
        if let Some(event) = &event {
            self.next = event.seq + 1;
        }
        Ok(event)
    }

    /// Waits for the next one. None: the store is closed. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        loop {
            if let Some(event) = self.ready()? {
                return Ok(Some(event));
            }
            if !self.store.event_after(self.next - 1).await {
                return Ok(None);
            }
        }
    }
}
