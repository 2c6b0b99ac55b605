//! The helper's own children: each is reaped when its pidfd says that it has ended, and how it
//! ended is remembered for as long as there is room.
//!
//! A VMM that was started by an earlier helper is nobody's child here; its status stays unknown.

use std::collections::{HashSet, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::audit::unix_ms;
use super::process::Held;
use crate::model::VmId;
use crate::wire::helper::{WireExit, WireExitHow};

const REMEMBERED: usize = 1024;

/// pid and start time; the boot is this one.
type Key = (u32, u64);

#[derive(Debug)]
pub(super) struct Children {
    book: Mutex<Book>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    alive: HashSet<Key>,
    ended: VecDeque<(VmId, Key, WireExit)>,
}

impl Children {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { book: Mutex::default(), changes: watch::Sender::new(0) })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes care of a child until it is reaped.
    pub(super) fn adopt(self: &Arc<Self>, vm: VmId, mut child: Child, held: Held) {
        let key = (held.pid, held.start_ticks);
        self.book().alive.insert(key);
        let children = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = held.ended(Duration::MAX).await {
                tracing::error!(pid = key.0, error = error.message(), "child cannot be watched");
            }
            // It has ended, so this does not block; were the watch broken it would be a zombie
            // until then, which is the lesser evil.
            let status = child.try_wait().ok().flatten();
            children.record(vm, key, how(status));
        });
    }

    fn record(&self, vm: VmId, key: Key, how: WireExitHow) {
        let mut book = self.book();
        book.alive.remove(&key);
        if book.ended.len() == REMEMBERED {
            book.ended.pop_front();
        }
        book.ended.push_back((vm, key, WireExit { unix_ms: unix_ms(), how }));
        drop(book);
        tracing::info!(%vm, pid = key.0, ?how, "VMM ended");
        self.changes.send_modify(|count| *count += 1);
    }

    /// How that process ended, if it was a child and its end is remembered.
    pub(super) fn exit_of(&self, vm: VmId, key: Key) -> Option<WireExit> {
        let book = self.book();
        book.ended.iter().rfind(|(of, at, _)| *of == vm && *at == key).map(|end| end.2.clone())
    }

    pub(super) fn last_exit(&self, vm: VmId) -> Option<WireExit> {
        self.book().ended.iter().rfind(|(of, ..)| *of == vm).map(|end| end.2.clone())
    }

    /// The same for a process that has just ended: the task that reaps it may not have run yet.
    pub(super) async fn exit_soon(&self, vm: VmId, key: Key, limit: Duration) -> Option<WireExit> {
        let mut changes = self.changes.subscribe();
        let reaped = async {
            while self.book().alive.contains(&key) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(limit, reaped).await;
        self.exit_of(vm, key)
    }
}

fn how(status: Option<ExitStatus>) -> WireExitHow {
    let Some(status) = status else { return WireExitHow::Unknown };
    match (status.code(), status.signal()) {
        (Some(code), _) => WireExitHow::Status(code),
        (None, Some(signal)) => WireExitHow::Signal(signal),
        (None, None) => WireExitHow::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::process::hold;

    #[allow(clippy::disallowed_methods, reason = "children to reap")]
    fn shell(script: &str) -> Child {
        std::process::Command::new("sh").args(["-c", script]).spawn().unwrap()
    }

    #[tokio::test]
    async fn ends_are_remembered() {
        let children = Children::new();
        let (vm, other) = (VmId([1; 16]), VmId([2; 16]));
        let child = shell("exec sleep 1000");
        let held = hold(child.id()).unwrap();
        let key = (held.pid, held.start_ticks);
        let killer = hold(child.id()).unwrap();
        children.adopt(vm, child, held);
        assert_eq!(children.exit_of(vm, key), None);
        killer.signal(9).unwrap();
        let exit = children.exit_soon(vm, key, Duration::from_secs(10)).await.unwrap();
        assert_eq!(exit.how, WireExitHow::Signal(9));
        assert_eq!(children.exit_of(other, key), None);
        assert_eq!(children.last_exit(vm), Some(exit));
    }

    #[test]
    fn the_book_is_bounded() {
        let children = Children::new();
        for n in 0..2000_u32 {
            children.record(VmId([1; 16]), (n, 0), WireExitHow::Status(0));
        }
        assert_eq!(children.book().ended.len(), REMEMBERED);
        assert_eq!(children.exit_of(VmId([1; 16]), (0, 0)), None);
    }
}
