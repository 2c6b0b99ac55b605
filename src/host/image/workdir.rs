//! Directories for work in progress, each locked by the process that works there.
//!
//! The lock goes with its process, however it ends; so what is not locked is a leftover.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::host::files::gone;
use crate::ports::HostError;

/// Removed with all that is in it when dropped.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    /// Held, not used.
    _lock: File,
}

impl WorkDir {
    pub(super) fn new(tmp: &Path) -> Result<Self, HostError> {
        Self::named(tmp, "")
    }

    /// With a prefix that tells it from others' directories in a place like `/var/tmp`.
    pub(super) fn named(tmp: &Path, prefix: &str) -> Result<Self, HostError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let failed = |path: &Path, error| {
            HostError::io("make work directory", path.display().to_string(), error)
        };
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = tmp.join(format!("{prefix}{}-{number}", std::process::id()));
            if fs::symlink_metadata(&path).is_ok() {
                continue; // of an earlier process with our pid
            }
            DirBuilder::new().mode(0o700).create(&path).map_err(|error| failed(&path, error))?;
            // A sweep may come between the two; then it is made anew.
            if let Some(lock) = lock(&path).map_err(|error| failed(&path, error))? {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = gone(fs::remove_dir_all(&self.path)) {
            // The next sweep takes it.
            tracing::warn!(path = %self.path.display(), %error, "work directory stays");
        }
    }
}

/// `None` if the directory is gone or somebody else has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let dir = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let same = fs::symlink_metadata(path).is_ok_and(|there| {
        dir.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    });
    Ok(same.then_some(dir))
}

/// Removes what no process works on; says how many. Only names that begin with `prefix`.
pub(super) fn sweep(
    tmp: &Path,
    prefix: &str,
    remove: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<u32> {
    let mut removed = 0;
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        if !is_dir {
            gone(fs::remove_file(&path))?;
            removed += 1;
        } else if let Some(_lock) = lock(&path)? {
            gone(remove(&path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// What [`sweep`] would remove.
pub(super) fn leftovers(tmp: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        if !is_dir || lock(&path)?.is_some() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_progress_is_not_swept_and_leftovers_are() {
        let tmp = tempfile::tempdir().unwrap();
        let ours = WorkDir::new(tmp.path()).unwrap();
        fs::write(ours.file("half"), "x").unwrap();
        fs::create_dir(tmp.path().join("1-0")).unwrap();
        fs::write(tmp.path().join("1-0/half"), "x").unwrap();
        fs::write(tmp.path().join("loose"), "x").unwrap();
        let found = leftovers(tmp.path(), "").unwrap();
        assert!(found.len() == 2 && found.iter().all(|path| path.exists()), "{found:?}");
        assert_eq!(sweep(tmp.path(), "", |path| fs::remove_dir_all(path)).unwrap(), 2);
        assert!(ours.file("half").exists());
        drop(ours);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
