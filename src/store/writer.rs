//! The writer thread: the only place a write transaction exists.
//!
//! It must be a thread of its own. An LMDB write transaction belongs to the thread that began
//! it: committed elsewhere, it reports success and leaves the writer lock held for ever.
//!
//! Group commit: whatever waits is committed together, one fsync for the batch. Each job has a
//! nested transaction, so that a job that fails, panics or fills the map fails alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use heed::{Env, RwTxn, WithoutTls};
use tokio::sync::oneshot;

use super::StoreError;
use super::schema::Dbs;

const BATCH: usize = 64;

pub(super) trait Job: Send {
    /// Returns whether to keep what the job wrote.
    fn apply(&mut self, txn: &mut RwTxn<'_>, dbs: &Dbs) -> bool;
    /// Answers the caller, after the commit.
    fn settle(self: Box<Self>, committed: &Result<(), Arc<heed::Error>>);
}

pub(super) struct TypedJob<T, F> {
    work: Option<F>,
    result: Result<T, StoreError>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> TypedJob<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), result: Err(StoreError::Gone), reply }
    }
}

impl<T, F> Job for TypedJob<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut RwTxn<'_>, &Dbs) -> Result<T, StoreError> + Send + 'static,
{
    fn apply(&mut self, txn: &mut RwTxn<'_>, dbs: &Dbs) -> bool {
        let Some(work) = self.work.take() else { return false };
        let run = AssertUnwindSafe(|| work(txn, dbs));
        self.result = catch_unwind(run).unwrap_or(Err(StoreError::Panicked));
        self.result.is_ok()
    }

    fn settle(self: Box<Self>, committed: &Result<(), Arc<heed::Error>>) {
        let result = match (self.result, committed) {
            (Ok(_), Err(error)) => Err(StoreError::Commit(Arc::clone(error))),
            (result, _) => result,
        };
        drop(self.reply.send(result)); // the caller may have stopped waiting
    }
}

pub(super) fn spawn(
    env: Env<WithoutTls>,
    dbs: Dbs,
    jobs: Receiver<Box<dyn Job>>,
) -> std::io::Result<()> {
    let writer = std::thread::Builder::new().name("store-writer".into());
    let thread = writer.spawn(move || {
        while let Ok(first) = jobs.recv() {
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(BATCH - 1));
            let committed = commit(&env, &dbs, &mut batch).map_err(Arc::new);
            for job in batch {
                job.settle(&committed);
            }
        }
    })?;
    drop(thread); // detached: it ends when the last Store is dropped
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "this is the writer thread")]
fn commit(env: &Env<WithoutTls>, dbs: &Dbs, batch: &mut [Box<dyn Job>]) -> heed::Result<()> {
    let mut txn = env.write_txn()?;
    for job in batch {
        let mut nested = env.nested_write_txn(&mut txn)?;
        if job.apply(&mut nested, dbs) {
            nested.commit()?;
        } else {
            nested.abort();
        }
    }
    txn.commit()
}
