//! Small helpers for files that must be whole or absent, shared by `disk/` and `image/`.
//!
//! The order of publishing is always the same: write under a temporary name in the same file
//! system, sync the file, rename, sync the directory. Nothing here follows a symbolic link in the
//! last component of a path it makes or removes.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::model::Code;
use crate::ports::HostError;

/// Where the host's programs are looked for; `mke2fs` is in sbin, which users often lack.
pub(super) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs blocking work off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(died) => Err(HostError::new(Code::Internal, operation, "").because(died)),
    }
}

/// Of all that is still to be read, and how many bytes that were.
pub(super) fn hash(file: &mut File) -> io::Result<(Sha256, u64)> {
    let (mut hash, mut len) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, len)),
            read => {
                hash.update(&buffer[..read]);
                len += read as u64;
            }
        }
    }
}

/// Bytes that an ordinary user may still write to the file system of `path`.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Has the kernel begin to write out what was just written there, so that a later sync waits for little.
/// Linux does that for pages that are said not to be wanted soon, and keeps those it has yet to write.
pub(super) fn write_out_soon(file: &File, at: u64, len: u64) {
    let begun = rustix::fs::fadvise(file, at, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    if let Err(error) = begun {
        tracing::debug!(%error, "not written out early");
    }
}

/// Makes the directory and its parents, for the owner only; a symbolic link in its place is
/// refused, for what is written there could end anywhere.
pub(super) fn ensure_private_dir(path: &Path) -> Result<(), HostError> {
    let failed = |error| HostError::io("make directory", path.display().to_string(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    if fs::symlink_metadata(path).map_err(failed)?.is_dir() {
        return Ok(());
    }
    Err(not_a_directory(path))
}

/// Whether the directory is there; anything else in its place is refused.
pub(super) fn is_real_dir(path: &Path) -> Result<bool, HostError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(true),
        Ok(_) => Err(not_a_directory(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(HostError::io("look at", path.display().to_string(), error)),
    }
}

fn not_a_directory(path: &Path) -> HostError {
    HostError::new(Code::Refused, "use as a directory", path.display().to_string())
        .because("it is a symbolic link or a file")
        .hint("somebody else put it there; move it away")
}

/// A name beside `path` that nobody else uses: hidden, marked as temporary, with our pid.
pub(super) fn temp_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".tmp-");
    name.push(format!("{}-{}-", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Whether a name is one that [`temp_beside`] made in a process that is not this one.
pub(super) fn is_stale_temp(name: &str) -> bool {
    let pid = name.strip_prefix(".tmp-").and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| pid != std::process::id().to_string())
}

/// Removes a file when dropped, unless it was published.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
    armed: bool,
}

impl TempFile {
    pub(super) fn beside(target: &Path) -> Self {
        Self { path: temp_beside(target), armed: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames to `target`, which is replaced, and makes that durable. The caller has synced the
    /// file's content.
    pub(super) fn publish(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.armed = false;
        sync_parent(target)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.armed {
            // Nothing more can be done about a leftover here; the next sweep takes it.
            drop(fs::remove_file(&self.path));
        }
    }
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Removing what is not there succeeds.
pub(super) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert_eq!(ensure_private_dir(&link).unwrap_err().code, Code::Refused);
        assert_eq!(is_real_dir(&link).unwrap_err().code, Code::Refused);
        assert!(!is_real_dir(&dir.path().join("none")).unwrap());
    }

    #[test]
    fn an_unpublished_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let temp = TempFile::beside(&target);
        fs::write(temp.path(), "half").unwrap();
        drop(temp);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let temp = TempFile::beside(&target);
        fs::write(temp.path(), "whole").unwrap();
        temp.publish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
    }

    #[test]
    fn only_temporary_names_of_others_are_stale() {
        let ours = temp_beside(Path::new("/x/y"));
        assert!(!is_stale_temp(ours.file_name().unwrap().to_str().unwrap()));
        assert!(is_stale_temp(".tmp-1-0-y"));
        assert!(!is_stale_temp("overlay.ext4"));
    }
}
