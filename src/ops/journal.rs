//! Where the runner writes what it is about to do and what came of it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::model::{Entry, LedgerChange, OpId, chain};
use crate::store::{Store, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal could not be written")]
pub struct JournalLost;

pub trait Journal: Send {
    /// Returns once the entries are durable, and the ledger with them, all of it or nothing.
    fn record(
        &mut self,
        entries: Vec<Entry>,
        ledger: Vec<LedgerChange>,
    ) -> BoxFuture<'_, Result<(), JournalLost>>;
}

#[derive(Debug)]
pub struct StoreJournal {
    store: Store,
    op: OpId,
    next: u32,
}

/// A full queue empties within milliseconds; only a store that hangs takes longer than all tries.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const BUSY_TRIES: u32 = 1000;

impl StoreJournal {
    /// Of a new operation.
    #[must_use]
    pub fn new(store: Store, op: OpId) -> Self {
        Self { store, op, next: 0 }
    }

    /// Of an operation that has a history, with it.
    pub fn resume(store: Store, op: OpId) -> Result<(Self, Vec<Entry>), StoreError> {
        let history = store.history(op)?;
        let next = u32::try_from(history.len()).unwrap_or(u32::MAX);
        Ok((Self { store, op, next }, history))
    }
}

impl Journal for StoreJournal {
    fn record(
        &mut self,
        entries: Vec<Entry>,
        ledger: Vec<LedgerChange>,
    ) -> BoxFuture<'_, Result<(), JournalLost>> {
        let n = self.next;
        self.next += u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let write = async move {
            for _ in 0..BUSY_TRIES {
                match self.store.append_with(self.op, n, entries.clone(), ledger.clone()).await {
                    Ok(()) => return Ok(()),
                    // Refused before anything was written: the same again is safe.
                    Err(StoreError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                    Err(error) => {
                        tracing::error!(op_id = %self.op, error = chain(&error), "journal write failed");
                        return Err(JournalLost);
                    }
                }
            }
            tracing::error!(op_id = %self.op, "journal write refused: the store queue stays full");
            Err(JournalLost)
        };
        write.boxed()
    }
}
