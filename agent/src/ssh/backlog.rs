//! What a client sent on a channel and its program has not read yet.
//!
//! russh grants a channel new window by itself as data arrives, up to a target the handler may
//! move at each grant. That makes unread data pile up without bound, and waiting in its callback
//! instead would stop the whole connection, output included, which deadlocks any filter. So the
//! target is the brake: over [`HIGH`] it drops to [`TRICKLE`] and the client can send no more than
//! a few bytes at a time, until the program has read on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Above this the channel is braked. Its client may still use the window it has: 2 MiB.
pub(super) const HIGH: usize = 1 << 20;
/// While any channel holds this much, all of its connection are braked.
pub(super) const CAP: usize = 32 << 20;
/// The smallest target for which russh still grants anything.
pub(super) const TRICKLE: u32 = 2;

#[derive(Clone, Debug)]
pub(super) struct Backlog(Arc<Inner>);

impl Default for Backlog {
    fn default() -> Self {
        Self::new(HIGH)
    }
}

#[derive(Debug)]
struct Inner {
    high: usize,
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    /// The reader is gone; what comes now is dropped.
    unread: bool,
}

impl Backlog {
    /// [`Backlog::drained`] tells when it falls back to `high` bytes.
    pub(super) fn new(high: usize) -> Self {
        let (state, filled, drained) = Default::default();
        Self(Arc::new(Inner { high, state, filled, drained }))
    }

    pub(super) fn push(&self, data: &[u8]) {
        let mut state = self.state();
        if state.unread || data.is_empty() {
            return;
        }
        state.bytes += data.len();
        state.chunks.push_back(Bytes::copy_from_slice(data));
        drop(state);
        self.0.filled.notify_one();
    }

    /// The client's end of file, after all that it sent before.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.0.filled.notify_one();
    }

    /// The next data; `None` at the end of file. There is one reader.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.0.filled.notified().await;
        }
    }

    /// `None`: nothing for now. `Some(None)`: nothing any more.
    #[allow(clippy::option_option, reason = "it says just that")]
    fn take(&self) -> Option<Option<Bytes>> {
        let mut state = self.state();
        let Some(chunk) = state.chunks.pop_front() else {
            return state.ended.then_some(None);
        };
        let was_high = state.bytes > self.0.high;
        state.bytes -= chunk.len();
        if was_high && state.bytes <= self.0.high {
            self.0.drained.notify_one();
        }
        Some(Some(chunk))
    }

    /// Nobody will read any more.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.unread = true;
        state.chunks.clear();
        state.bytes = 0;
        drop(state);
        self.0.drained.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.state().bytes
    }

    /// Until the reader has caught up.
    pub(super) async fn drained(&self) {
        self.0.drained.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn data_comes_in_order_and_the_end_comes_last() {
        run(async {
            let backlog = Backlog::default();
            backlog.push(b"one");
            backlog.push(b"two");
            backlog.end();
            assert_eq!(backlog.next().await.unwrap(), "one");
            assert_eq!(backlog.next().await.unwrap(), "two");
            assert_eq!(backlog.next().await, None);
            assert_eq!(backlog.next().await, None);
        });
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        run(async {
            let backlog = Backlog::default();
            let other = backlog.clone();
            let read = async { other.next().await };
            let write = async { backlog.push(b"x") };
            assert_eq!(tokio::join!(read, write).0.unwrap(), "x");
        });
    }

    #[test]
    fn draining_and_abandoning_are_told() {
        run(async {
            let backlog = Backlog::default();
            backlog.push(&vec![0; HIGH]);
            backlog.push(b"x");
            assert_eq!(backlog.len(), HIGH + 1);
            drop(backlog.next().await);
            backlog.drained().await;
            backlog.push(&vec![0; HIGH]);
            backlog.abandon();
            backlog.drained().await;
            assert_eq!(backlog.len(), 0);
            backlog.push(b"dropped");
            assert_eq!(backlog.len(), 0);
        });
    }
}
