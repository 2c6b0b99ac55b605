//! The writer thread: the only place a write transaction exists.
//!
//! It must be a thread of its own. An LMDB write transaction belongs to the thread that began
//! it: committed elsewhere, it reports success and leaves the writer lock held for ever.
//!
//! Group commit: whatever waits is committed together, one fsync for the batch. Each job has a
//! nested transaction, so that a job that fails, panics or fills the map fails alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Select};
use heed::{Env, RwTxn, WithoutTls};
use tokio::sync::oneshot;

use super::StoreError;
use super::events::{self, LINGER, Published};
use super::room::Room;
use super::schema::Dbs;
use crate::model::{Event, EventKind};

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

pub(super) struct Writer {
    pub(super) env: Env<WithoutTls>,
    pub(super) dbs: Dbs,
    pub(super) jobs: Receiver<Box<dyn Job>>,
    pub(super) published: Published,
}

impl Writer {
    pub(super) fn spawn(self) -> std::io::Result<()> {
        let writer = std::thread::Builder::new().name("store-writer".into());
        let thread = writer.spawn(move || {
            let mut room = Room::default();
            room.keep(&self.env);
            while let Some(batch) = next_batch(&self.jobs, &self.published.queue) {
                self.turn(batch);
                room.keep(&self.env);
            }
            // Nobody is left to tell that what was published last could not be written.
            self.turn(vec![]);
        })?;
        drop(thread); // detached: it ends when the last Store is dropped
        Ok(())
    }

    /// Commits a batch and answers those who wait for it.
    pub(super) fn turn(&self, mut batch: Vec<Box<dyn Job>>) {
        let Self { env, dbs, published, .. } = self;
        let committed = commit(env, dbs, &mut batch, published).map_err(Arc::new);
        for job in batch {
            job.settle(&committed);
        }
    }
}

/// Waits for jobs, or for events that no job came for in time: their batch is empty. None: the last
/// store is gone.
fn next_batch(
    jobs: &Receiver<Box<dyn Job>>,
    events: &Receiver<Event>,
) -> Option<Vec<Box<dyn Job>>> {
    let mut either = Select::new();
    let from_jobs = either.recv(jobs);
    either.recv(events);
    let first = if either.ready() == from_jobs || !jobs.is_empty() {
        Some(jobs.recv().ok()?)
    } else {
        match jobs.recv_timeout(LINGER) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    };
    Some(first.into_iter().chain(jobs.try_iter().take(BATCH - 1)).collect())
}

/// What was published comes before what the jobs have to tell: it happened before them.
#[allow(clippy::disallowed_methods, reason = "this is the writer thread")]
fn commit(
    env: &Env<WithoutTls>,
    dbs: &Dbs,
    batch: &mut [Box<dyn Job>],
    published: &Published,
) -> heed::Result<()> {
    let (waiting, lost) = published.take();
    let count = waiting.len();
    let result = write(env, dbs, batch, waiting, lost, published);
    if !matches!(result, Ok((_, true))) {
        published.lose(count, lost);
    }
    result.map(|(last, _)| published.announce(last))
}

/// Answers with the number of the newest event, and whether those that waited are written.
#[allow(clippy::disallowed_methods, reason = "this is the writer thread")]
fn write(
    env: &Env<WithoutTls>,
    dbs: &Dbs,
    batch: &mut [Box<dyn Job>],
    waiting: Vec<Event>,
    lost: u64,
    published: &Published,
) -> heed::Result<(u64, bool)> {
    let mut txn = env.write_txn()?;
    let mut kept = true;
    if !waiting.is_empty() || lost > 0 {
        let mut nested = env.nested_write_txn(&mut txn)?;
        match keep(&mut nested, dbs, waiting, lost) {
            Ok(()) => nested.commit()?,
            Err(error) => {
                nested.abort();
                kept = false;
                tracing::error!(error = %crate::model::chain(&error), "events not written");
            }
        }
    }
    for job in batch {
        let mut nested = env.nested_write_txn(&mut txn)?;
        if job.apply(&mut nested, dbs) {
            nested.commit()?;
        } else {
            nested.abort();
        }
    }
    if published.excess(&txn, dbs)? > 0 {
        let mut nested = env.nested_write_txn(&mut txn)?;
        match published.prune(&mut nested, dbs) {
            Ok(()) => nested.commit()?,
            Err(_) => nested.abort(), // the next commit tries again
        }
    }
    let last = events::last(&txn, dbs)?;
    txn.commit()?;
    Ok((last, kept))
}

fn keep(txn: &mut RwTxn<'_>, dbs: &Dbs, waiting: Vec<Event>, lost: u64) -> Result<(), StoreError> {
    let mut unix_ms = events::newest(txn, dbs)?.map_or(0, |event| event.unix_ms);
    for event in waiting {
        unix_ms = event.unix_ms;
        events::append(txn, dbs, event)?;
    }
    if lost > 0 {
        let kind = EventKind::Lost { count: lost };
        events::append(txn, dbs, Event { seq: 0, unix_ms, op_id: None, vm: None, kind })?;
    }
    Ok(())
}
