//! `WarmHost` on the local file system.
//!
//! ```text
//! <state>/warm/<key>/              manifest, and the files of a snapshot
//!              .tmp-<pid>-<n>-<key>/   one in the making
//! ```
//!
//! A directory appears whole, by a rename, and is never changed again but for the manifest's
//! time stamp, which says when it was last used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::manifest::{self, Manifest};
use crate::host::files::{
    blocking, ensure_private_dir, free_bytes, gone, is_stale_temp, temp_beside,
};
use crate::model::{Code, Digest, OpId, Size};
use crate::ports::{Claim, Draft, Found, HostError, Likeness, PortFuture, Snapshot, WarmHost};

/// Each holds as much as its guests have memory.
const MOST: usize = 4;

#[derive(Clone, Debug)]
pub struct LocalWarm {
    dir: PathBuf,
    /// Left free for everything else.
    reserve: Size,
    /// A claim ends with its last holder.
    claimed: Arc<Mutex<HashMap<Digest, Weak<()>>>>,
}

#[derive(Debug)]
struct LocalDraft(Snapshot);

impl Draft for LocalDraft {
    fn snapshot(&self) -> &Snapshot {
        &self.0
    }
}

impl Drop for LocalDraft {
    fn drop(&mut self) {
        // Not there once it is kept. A leftover is the next sweep's.
        drop(fs::remove_dir_all(&self.0.dir));
    }
}

impl LocalWarm {
    /// Makes `<state>/warm` if it is missing.
    pub fn new(state: &Path, reserve: Size) -> Result<Self, HostError> {
        let dir = state.join("warm");
        ensure_private_dir(&dir)?;
        Ok(Self { dir, reserve, claimed: Arc::default() })
    }

    fn place(&self, like: &Likeness) -> Result<(Digest, PathBuf), HostError> {
        let boot = manifest::host_boot().map_err(|error| self.failed("name", error))?;
        let key = manifest::key(like, &boot);
        Ok((key, self.dir.join(key.to_string())))
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> HostError {
        HostError::io(operation, format!("snapshots in {}", self.dir.display()), error)
    }

    fn look(&self, op: OpId, like: &Likeness) -> Result<Found, HostError> {
        let (key, dir) = self.place(like)?;
        match whole(&dir) {
            Ok(true) => {
                // Only the order in which they go depends on it.
                drop(used_now(&dir));
                return Ok(Found::Snapshot(Snapshot { dir }));
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(op_id = %op, dir = %dir.display(), %error, "snapshot damaged; removed");
                remove(&dir).map_err(|error| self.failed("remove from", error))?;
            }
        }
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.retain(|_, claim| claim.strong_count() > 0);
        if claimed.contains_key(&key) {
            return Ok(Found::BeingMade);
        }
        let claim = Claim::default();
        claimed.insert(key, Arc::downgrade(&claim));
        Ok(Found::Missing(claim))
    }

    fn begin(&self, like: &Likeness, room: Size) -> Result<Box<dyn Draft>, HostError> {
        let (_, place) = self.place(like)?;
        let free =
            free_bytes(&self.dir).map_err(|error| self.failed("measure free space for", error))?;
        let free = Size::from_bytes(free);
        if free.bytes() < room.bytes().saturating_add(self.reserve.bytes()) {
            let object = self.dir.display().to_string();
            return Err(HostError::new(Code::NoSpace, "save a snapshot in", object)
                .because(format!("it takes {room}, {free} are free")));
        }
        let dir = temp_beside(&place);
        DirBuilder::new().mode(0o700).create(&dir).map_err(|error| self.failed("add to", error))?;
        Ok(Box::new(LocalDraft(Snapshot { dir })))
    }

    fn publish(&self, like: &Likeness, draft: &dyn Draft) -> Result<(), HostError> {
        let failed = |error| self.failed("add to", error);
        let from = &draft.snapshot().dir;
        let (_, place) = self.place(like)?;
        let boot = manifest::host_boot().map_err(failed)?;
        let made = Manifest::of(from, like, boot).and_then(|manifest| manifest.write(from));
        made.map_err(failed)?;
        remove(&place).and_then(|()| fs::rename(from, &place)).map_err(failed)?;
        let mut all = self.all().map_err(failed)?;
        all.sort_unstable_by_key(|(dir, _)| std::cmp::Reverse(last_used(dir)));
        for (dir, _) in all.into_iter().skip(MOST) {
            tracing::info!(dir = %dir.display(), "snapshot makes room for others");
            remove(&dir).map_err(failed)?;
        }
        Ok(())
    }

    fn all(&self) -> io::Result<Vec<(PathBuf, Option<Manifest>)>> {
        let mut all = vec![];
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                let manifest = Manifest::read(&entry.path()).ok();
                all.push((entry.path(), manifest));
            }
        }
        Ok(all)
    }

    fn measure(&self) -> io::Result<BTreeMap<Digest, (u32, u64)>> {
        let mut all = BTreeMap::<_, (u32, u64)>::new();
        for (dir, manifest) in self.all()? {
            let Some(image) = manifest.and_then(|manifest| manifest.image.parse().ok()) else {
                continue;
            };
            let (count, bytes) = all.entry(image).or_default();
            *count += 1;
            for file in fs::read_dir(dir)? {
                *bytes += file?.metadata()?.blocks() * 512;
            }
        }
        Ok(all)
    }

    fn clean(&self, known: &[Digest]) -> io::Result<u32> {
        let useless = self.useless(known)?;
        useless.iter().try_for_each(|dir| remove(dir))?;
        Ok(u32::try_from(useless.len()).unwrap_or(u32::MAX))
    }

    fn useless(&self, known: &[Digest]) -> io::Result<Vec<PathBuf>> {
        let known: HashSet<String> = known.iter().map(ToString::to_string).collect();
        let boot = manifest::host_boot()?;
        let useful = |manifest: &Manifest| {
            manifest.host_boot == boot
                && known.contains(&manifest.image)
                && known.contains(&manifest.kernel)
        };
        let all = self.all()?.into_iter();
        let mut useless: Vec<_> = all
            .filter(|(_, manifest)| !manifest.as_ref().is_some_and(useful))
            .map(|(dir, _)| dir)
            .collect();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_stale_temp) {
                useless.push(entry.path());
            }
        }
        Ok(useless)
    }
}

/// False: there is none. What is there and not whole is an error.
fn whole(dir: &Path) -> io::Result<bool> {
    if !fs::exists(dir)? {
        return Ok(false);
    }
    match Manifest::read(dir)?.fits(dir)? {
        true => Ok(true),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "files of other sizes")),
    }
}

fn last_used(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir.join(manifest::NAME)).and_then(|meta| meta.modified()).ok()
}

fn used_now(dir: &Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let stamps = Timestamps { last_access: now, last_modification: now };
    Ok(utimensat(CWD, dir.join(manifest::NAME), &stamps, AtFlags::empty())?)
}

/// What is mapped stays with those who map it.
fn remove(dir: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(dir))
}

impl WarmHost for LocalWarm {
    fn find<'a>(&'a self, op: OpId, like: &'a Likeness) -> PortFuture<'a, Found> {
        let (this, like) = (self.clone(), like.clone());
        Box::pin(blocking("look for a snapshot", move || this.look(op, &like)))
    }

    fn draft<'a>(
        &'a self,
        _op: OpId,
        like: &'a Likeness,
        room: Size,
    ) -> PortFuture<'a, Box<dyn Draft>> {
        let (this, like) = (self.clone(), like.clone());
        Box::pin(blocking("begin a snapshot", move || this.begin(&like, room)))
    }

    fn keep<'a>(
        &'a self,
        op: OpId,
        like: &'a Likeness,
        draft: Box<dyn Draft>,
    ) -> PortFuture<'a, ()> {
        let (this, like) = (self.clone(), like.clone());
        tracing::debug!(op_id = %op, "keeping a snapshot");
        Box::pin(blocking("keep a snapshot", move || this.publish(&like, &*draft)))
    }

    fn remove<'a>(&'a self, op: OpId, snapshot: &'a Snapshot) -> PortFuture<'a, ()> {
        let (this, dir) = (self.clone(), snapshot.dir.clone());
        tracing::debug!(op_id = %op, dir = %dir.display(), "removing a snapshot");
        Box::pin(blocking("remove a snapshot", move || {
            remove(&dir).map_err(|error| this.failed("remove from", error))
        }))
    }

    fn usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, (u32, u64)>> {
        let this = self.clone();
        Box::pin(blocking("measure snapshots", move || {
            this.measure().map_err(|error| this.failed("measure", error))
        }))
    }

    fn leftovers<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, Vec<PathBuf>> {
        let (this, known) = (self.clone(), known.to_vec());
        Box::pin(blocking("list snapshots", move || {
            this.useless(&known).map_err(|error| this.failed("list", error))
        }))
    }

    fn sweep<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, u32> {
        let (this, known) = (self.clone(), known.to_vec());
        Box::pin(blocking("sweep snapshots", move || {
            this.clean(&known).map_err(|error| this.failed("sweep", error))
        }))
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
