//! A store of a daemon that dies at one of its writes, or whose disk takes none for a while, for tests.
//!
//! ```text
//! write n ──lost──> never done, never answered       ┐ the power is off: no write after it is done
//!        ├──kept──> durable, and never answered      ┘ or answered
//!        └──refused──> never done, an error          as on a disk that is full
//! ```
//!
//! What writes does so on its own thread, one job at a time, so that a test is the same each time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::writer::Writer;

#[derive(Clone)]
pub(crate) struct Mortal {
    writer: Arc<Writer>,
    /// Cancelled when the daemon dies, of whatever.
    power: CancellationToken,
    writes: Arc<AtomicUsize>,
    dies: Arc<Mutex<Option<(usize, bool)>>>,
    refused: Arc<Mutex<Range<usize>>>,
}

impl std::fmt::Debug for Mortal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mortal").field("writes", &self.writes).finish_non_exhaustive()
    }
}

impl Mortal {
    pub(super) fn new(writer: Writer, power: CancellationToken) -> Self {
        let writer = Arc::new(writer);
        let (writes, dies, refused) = (Arc::default(), Arc::default(), Arc::default());
        Self { writer, power, writes, dies, refused }
    }

    /// How many writes there were since the store was opened.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// The daemon dies at this write, counted from 0, which is kept or lost.
    pub(crate) fn dies_at(&self, write: usize, keeps: bool) {
        *self.dies.lock().unwrap_or_else(PoisonError::into_inner) = Some((write, keeps));
    }

    /// These writes, counted from 0, fail.
    pub(crate) fn refuses(&self, writes: Range<usize>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = writes;
    }
}

/// What a write ends with.
pub(super) struct Turn<'a> {
    mortal: Option<&'a Mortal>,
    last: bool,
}

/// Returns if the write is to be done, or fails.
pub(super) async fn begin(mortal: Option<&Mortal>) -> Result<Turn<'_>, StoreError> {
    let Some(of) = mortal else { return Ok(Turn { mortal, last: false }) };
    if of.power.is_cancelled() {
        std::future::pending::<()>().await;
    }
    let write = of.writes.fetch_add(1, Ordering::Relaxed);
    if of.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&write) {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        return Err(StoreError::Commit(Arc::new(full.into())));
    }
    let dies = *of.dies.lock().unwrap_or_else(PoisonError::into_inner);
    match dies.filter(|(at, _)| *at == write) {
        Some((_, false)) => {
            of.power.cancel();
            std::future::pending().await
        }
        dies => Ok(Turn { mortal, last: dies.is_some() }),
    }
}

impl Turn<'_> {
    pub(super) async fn end(self) {
        let Some(of) = self.mortal else { return };
        of.writer.turn(of.writer.jobs.try_iter().collect());
        if self.last {
            of.power.cancel();
            std::future::pending::<()>().await;
        }
    }
}
