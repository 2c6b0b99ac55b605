//! Blobs that came from registries, by their digests. Blocking.
//!
//! ```text
//! blobs/partial/<digest>  grows; continued after a break, a crash, a restart
//!        └─ whole and its digest right ─> blobs/sha256/<digest>, which never changes
//! ```
//!
//! Who has a blob's lock writes it, and nobody else: the lock goes with the writer's thread, not with
//! whoever waits for it. What must not be done here: put anything under `sha256` that was not hashed
//! on its way.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::host::clock::SystemClock;
use crate::host::files::{ensure_private_dir, free_bytes, gone, hash, sync_parent, write_out_soon};
use crate::model::{Digest, Size};
use crate::ports::{CachedBlob, Clock, HostError};

/// Of what is not whole, after that long without a byte nobody comes back for it.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is written before the disk is told to begin with it.
const STRIDE: u64 = 4 << 20;

pub(super) type Lock = OwnedMutexGuard<()>;
type Locks = HashMap<Digest, Weak<tokio::sync::Mutex<()>>>;

#[derive(Clone, Debug)]
pub(in crate::host::image) struct Cache {
    /// Has `blobs`, as the directory of an OCI layout has it.
    dir: PathBuf,
    whole: PathBuf,
    partial: PathBuf,
    locks: Arc<Mutex<Locks>>,
}

impl Cache {
    pub(in crate::host::image) fn new(state: &Path) -> Result<Self, HostError> {
        let blobs = state.join("blobs");
        let (whole, partial) = (blobs.join("sha256"), blobs.join("partial"));
        for dir in [&blobs, &whole, &partial] {
            ensure_private_dir(dir)?;
        }
        Ok(Self { dir: state.to_owned(), whole, partial, locks: Arc::default() })
    }

    /// Whole blobs are below it where an OCI layout has them.
    pub(in crate::host::image) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(in crate::host::image) fn path(&self, digest: Digest) -> PathBuf {
        self.whole.join(digest.to_string())
    }

    /// Its size, if it is there as a whole. It is then the last to go when room is made.
    pub(super) fn find(&self, digest: Digest) -> Option<u64> {
        let file = File::open(self.path(digest)).ok()?;
        let used = FileTimes::new().set_modified(now());
        if let Err(error) = file.set_times(used) {
            tracing::debug!(%digest, %error, "use of a blob not noted");
        }
        file.metadata().ok().map(|meta| meta.len())
    }

    /// How many bytes are still to come of blobs of these sizes.
    pub(super) fn missing(&self, blobs: &[(Digest, u64)]) -> u64 {
        let there = |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        let left = |(digest, size): &(Digest, u64)| {
            let part = there(self.partial.join(digest.to_string()));
            size.saturating_sub(part.max(there(self.path(*digest))))
        };
        blobs.iter().map(left).fold(0, u64::saturating_add)
    }

    /// Bytes that the disk has room for.
    pub(super) fn room(&self) -> io::Result<u64> {
        free_bytes(&self.whole)
    }

    /// Waits until nobody else writes this blob.
    pub(super) async fn lock(&self, digest: Digest) -> Lock {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(digest, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// Goes on with what there is of a blob; all of that is read to know its digest so far.
    pub(super) fn continue_blob(&self, digest: Digest, lock: Lock) -> io::Result<Partial> {
        let path = self.partial.join(digest.to_string());
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        let (hash, len) = hash(&mut file)?;
        let target = self.path(digest);
        Ok(Partial { file, path, target, hash, len, written_out: len, wanted: digest, lock })
    }

    /// A small blob that is at hand as a whole.
    pub(super) fn put(&self, digest: Digest, bytes: &[u8], lock: Lock) -> io::Result<()> {
        let mut partial = self.continue_blob(digest, lock)?;
        partial.start_over()?;
        partial.push(bytes)?;
        match partial.publish()? {
            Published::Whole => Ok(()),
            Published::Wrong(_) => Err(io::Error::other("its digest is another")),
        }
    }

    /// Forgets what there is of a blob that is not whole.
    pub(super) fn forget(&self, digest: Digest, _: &Lock) -> io::Result<()> {
        gone(fs::remove_file(self.partial.join(digest.to_string())))
    }

    /// Reads a whole blob, and takes it away if it is not what its name says. Answers whether it was
    /// taken away.
    pub(in crate::host::image) fn remove_if_damaged(&self, digest: Digest) -> io::Result<bool> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let (hash, _) = hash(&mut file)?;
        if Digest(hash.finalize().into()) == digest {
            return Ok(false);
        }
        tracing::warn!(%digest, "a blob in the cache is damaged, and removed");
        gone(fs::remove_file(&path)).map(|()| true)
    }

    /// All that is there, by their digests; what is no blob of ours is left out.
    pub(in crate::host::image) fn list(&self) -> io::Result<Vec<CachedBlob>> {
        let mut found = vec![];
        for (dir, whole) in [(&self.whole, true), (&self.partial, false)] {
            for file in files(dir)? {
                let name = file.path.file_name().and_then(|name| name.to_str());
                let Some(digest) = name.and_then(|name| name.parse().ok()) else { continue };
                let used = file.used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let used_unix_ms = u64::try_from(used.as_millis()).unwrap_or(u64::MAX);
                found.push(CachedBlob { digest, bytes: file.len, whole, used_unix_ms });
            }
        }
        found.sort_unstable_by_key(|blob| (blob.digest, blob.whole));
        Ok(found)
    }

    /// Removes all of it. Not to be asked while something is pulled.
    pub(in crate::host::image) fn empty(&self) -> io::Result<()> {
        let mut all = files(&self.partial)?.into_iter().chain(files(&self.whole)?);
        all.try_for_each(|file| gone(fs::remove_file(file.path)))
    }

    /// What is to go: parts that nobody came back for, and the blobs that were used the longest ago
    /// so that the rest takes no more than `limit`. Not to be asked while something is pulled.
    pub(in crate::host::image) fn surplus(&self, limit: Size) -> io::Result<Vec<PathBuf>> {
        let now = now();
        let aged = |used: SystemTime| now.duration_since(used).is_ok_and(|age| age > PARTIAL_AGE);
        let parts = files(&self.partial)?.into_iter();
        let mut found: Vec<_> =
            parts.filter(|file| aged(file.used)).map(|file| file.path).collect();
        let mut whole = files(&self.whole)?;
        whole.sort_unstable_by_key(|file| std::cmp::Reverse(file.used));
        let mut kept = 0;
        for file in whole {
            kept += file.len;
            if kept > limit.bytes() {
                found.push(file.path);
            }
        }
        Ok(found)
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(SystemClock.unix_ms())
}

struct Found {
    path: PathBuf,
    len: u64,
    used: SystemTime,
}

fn files(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = vec![];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        found.push(Found { path: entry.path(), len: meta.len(), used: meta.modified()? });
    }
    Ok(found)
}

/// What became of a blob that came to its end.
#[derive(Debug)]
pub(super) enum Published {
    Whole,
    /// All of it is forgotten. The lock is handed back for the next try.
    Wrong(Lock),
}

/// A blob on its way.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    hash: Sha256,
    len: u64,
    /// How much of it is on its way to the disk.
    written_out: u64,
    wanted: Digest,
    lock: Lock,
}

impl Partial {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        if self.len - self.written_out >= STRIDE {
            write_out_soon(&self.file, self.written_out, self.len - self.written_out);
            self.written_out = self.len;
        }
        Ok(())
    }

    pub(super) fn start_over(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.hash, self.len, self.written_out) = (Sha256::new(), 0, 0);
        Ok(())
    }

    /// Takes it in if it is what its digest says, and forgets it if not.
    pub(super) fn publish(self) -> io::Result<Published> {
        if Digest(self.hash.finalize().into()) != self.wanted {
            gone(fs::remove_file(&self.path))?;
            return Ok(Published::Wrong(self.lock));
        }
        self.file.set_permissions(Permissions::from_mode(0o600))?;
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        sync_parent(&self.target)?;
        Ok(Published::Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rig() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path()).unwrap();
        (dir, cache)
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    #[tokio::test]
    async fn a_blob_is_continued_where_it_was_left() {
        let (_dir, cache) = rig();
        let wanted = digest(b"all of it");
        let mut partial = cache.continue_blob(wanted, cache.lock(wanted).await).unwrap();
        partial.push(b"all ").unwrap();
        drop(partial);
        let mut partial = cache.continue_blob(wanted, cache.lock(wanted).await).unwrap();
        assert_eq!((partial.len(), cache.find(wanted)), (4, None));
        let other = digest(b"other");
        assert_eq!(cache.missing(&[(wanted, 9), (other, 6)]), 11);
        partial.push(b"of it").unwrap();
        assert!(matches!(partial.publish().unwrap(), Published::Whole));
        assert_eq!((cache.find(wanted), cache.missing(&[(wanted, 9)])), (Some(9), 0));
        assert_eq!(fs::read(cache.path(wanted)).unwrap(), b"all of it");
        assert_eq!(fs::read_dir(&cache.partial).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_not_what_it_should_be_is_forgotten() {
        let (_dir, cache) = rig();
        let wanted = digest(b"right");
        let mut partial = cache.continue_blob(wanted, cache.lock(wanted).await).unwrap();
        partial.push(b"wrong").unwrap();
        let Published::Wrong(lock) = partial.publish().unwrap() else { unreachable!("taken in") };
        let partial = cache.continue_blob(wanted, lock).unwrap();
        assert_eq!((partial.len(), cache.find(wanted)), (0, None));
        drop(partial);
        assert!(cache.put(wanted, b"wrong", cache.lock(wanted).await).is_err());
        cache.put(wanted, b"right", cache.lock(wanted).await).unwrap();
        cache.forget(wanted, &cache.lock(wanted).await).unwrap();
        assert!(!cache.remove_if_damaged(wanted).unwrap());
        fs::write(cache.path(wanted), b"rotten").unwrap();
        assert!(cache.remove_if_damaged(wanted).unwrap() && cache.find(wanted).is_none());
    }

    #[tokio::test]
    async fn two_never_write_one_blob() {
        let (_dir, cache) = rig();
        let wanted = digest(b"x");
        let partial = cache.continue_blob(wanted, cache.lock(wanted).await).unwrap();
        let other = cache.lock(wanted);
        tokio::pin!(other);
        assert!(futures::poll!(&mut other).is_pending());
        drop(partial);
        drop(other.await);
    }

    #[tokio::test]
    async fn what_was_used_last_is_kept() {
        let (_dir, cache) = rig();
        let blobs: [&[u8]; 3] = [b"one", b"two", b"six"];
        for (age, bytes) in blobs.iter().enumerate() {
            let wanted = digest(bytes);
            cache.put(wanted, bytes, cache.lock(wanted).await).unwrap();
            let file = File::open(cache.path(wanted)).unwrap();
            let used = now() - Duration::from_secs(100 * (age as u64 + 1));
            file.set_times(FileTimes::new().set_modified(used)).unwrap();
        }
        let old = digest(b"old");
        for (wanted, days) in [(old, 8), (digest(b"new"), 6)] {
            let partial = cache.continue_blob(wanted, cache.lock(wanted).await).unwrap();
            let used = now() - Duration::from_secs(days * 24 * 3600);
            partial.file.set_times(FileTimes::new().set_modified(used)).unwrap();
        }
        assert_eq!(cache.find(digest(b"six")), Some(3));
        let part = cache.partial.join(old.to_string());
        let gone = cache.surplus(Size::from_bytes(6)).unwrap();
        assert_eq!(gone, [part.clone(), cache.path(digest(b"two"))]);
        assert_eq!(cache.surplus(Size::from_bytes(9)).unwrap(), [part]);
        let all = cache.list().unwrap();
        let whole = all.iter().filter(|blob| blob.whole).map(|blob| blob.bytes);
        assert_eq!((all.len(), whole.sum::<u64>()), (5, 9));
        cache.empty().unwrap();
        assert_eq!(cache.list().unwrap(), []);
    }
}
