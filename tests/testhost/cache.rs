//! What is made once and kept: a directory each, named by a hash of what it was made from.
//!
//! They lie in each other: an image holds the states that were booted from it, such a state holds
//! those in which something was installed. So none can outlive what it refers to. Of each kind the
//! last used few are kept, and none is removed while a test uses it.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// Switching between a few checkouts makes nothing anew.
const KEEP: usize = 4;

/// Held while something is looked for, made or removed.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) dir: PathBuf,
    _lock: Flock<File>,
}

impl Cache {
    pub(crate) fn open() -> Self {
        Self::at(&crate::stock::cache().join("testhost"))
    }

    fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let dir = dir.canonicalize().unwrap();
        let lock = File::create(dir.join("lock")).unwrap();
        Self { dir, _lock: Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap() }
    }

    /// The directory `KIND-KEY` in `parent`; `make` fills it, if it is not there.
    pub(crate) fn entry(
        &self,
        parent: &Path,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path),
    ) -> Entry {
        let dir = parent.join(format!("{kind}-{key}"));
        if !dir.exists() {
            let unfinished = Unfinished::new(parent.join("unfinished"));
            make(&unfinished.0);
            // What is there by its name is whole, whatever happens to this machine.
            for file in fs::read_dir(&unfinished.0).unwrap().filter_map(Result::ok) {
                File::open(file.path()).unwrap().sync_all().unwrap();
            }
            fs::rename(&unfinished.0, &dir).unwrap();
        }
        let handle = File::open(&dir).unwrap();
        handle.set_times(FileTimes::new().set_modified(SystemTime::now())).unwrap();
        let lock = Flock::lock(handle, FlockArg::LockShared).map_err(|(_, e)| e).unwrap();
        prune(parent, kind);
        Entry { dir, _lock: lock }
    }
}

/// Not removed while this lives.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) dir: PathBuf,
    _lock: Flock<File>,
}

/// What a making that failed or was killed leaves.
struct Unfinished(PathBuf);

impl Unfinished {
    fn new(dir: PathBuf) -> Self {
        remove(&dir);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn prune(parent: &Path, kind: &str) {
    let mut found: Vec<_> = fs::read_dir(parent)
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{kind}-")))
        .map(|entry| (entry.metadata().unwrap().modified().unwrap(), entry.path()))
        .collect();
    found.sort();
    for (_, dir) in found.iter().rev().skip(KEEP) {
        let handle = File::open(dir).unwrap();
        if let Ok(_unused) = Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            remove(dir);
        }
    }
}

/// A system that was being built may still have mounts below it; what they show must stay.
fn remove(dir: &Path) {
    let removed = Command::new("rm").args(["-rf", "--one-file-system"]).arg(dir).status();
    assert!(removed.unwrap().success(), "cannot remove {}", dir.display());
}

/// A short name for all of `parts`.
pub(crate) fn key<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut all = Sha256::new();
    for part in parts {
        all.update(Sha256::digest(part));
    }
    all.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn file(dir: &Path) {
        fs::write(dir.join("file"), "whole").unwrap();
    }

    #[test]
    fn whoever_comes_at_the_same_time_finds_what_one_of_them_made() {
        let dir = tempfile::tempdir().unwrap();
        let made = AtomicU32::new(0);
        let look = || {
            let cache = Cache::at(dir.path());
            let entry = cache.entry(&cache.dir, "kind", "key", |dir| {
                made.fetch_add(1, Ordering::Relaxed);
                file(dir);
            });
            assert_eq!(fs::read_to_string(entry.dir.join("file")).unwrap(), "whole");
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(look);
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn what_was_not_finished_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        // As a maker that was killed leaves it.
        fs::create_dir(cache.dir.join("unfinished")).unwrap();
        fs::write(cache.dir.join("unfinished/half"), "").unwrap();
        let fails = || cache.entry(&cache.dir, "kind", "key", |_| panic!("on purpose"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).unwrap_err();
        let entry = cache.entry(&cache.dir, "kind", "key", file);
        let names = fs::read_dir(&entry.dir).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["file"]);
        assert!(!cache.dir.join("unfinished").exists());
    }

    #[test]
    fn the_oldest_go_unless_they_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let mut used = None;
        for number in 0..u64::try_from(KEEP).unwrap() + 2 {
            let entry = cache.entry(&cache.dir, "kind", &number.to_string(), file);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
            File::open(&entry.dir).unwrap().set_modified(time).unwrap();
            used = used.or(Some(entry));
        }
        let there = |number: usize| cache.dir.join(format!("kind-{number}")).exists();
        let found: Vec<_> = (0..KEEP + 2).map(there).collect();
        assert_eq!(found, [true, false, true, true, true, true], "{used:?}");
    }
}
