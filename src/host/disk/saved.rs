//! A suspended guest's memory: `saving/` while it is written, `saved/` once it is whole.
//!
//! The rename from the one to the other is what makes it the guest's memory, and comes after
//! everything that it stands for is on disk: the memory, and the disks as that memory knows them.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::sparse;
use crate::host::files::{ensure_private_dir, gone, is_real_dir, sync_parent};
use crate::model::{Code, SavedBy, Size};
use crate::ports::{HostError, VmPaths};

/// Left free besides what the memory may take, for logs and for what other guests write meanwhile.
const SPARE: Size = Size::from_mib(64);

pub(super) fn ensure_saving(paths: &VmPaths, most: Size, free: Size) -> Result<(), HostError> {
    let saving = paths.saving();
    let needed = Size::from_bytes(most.bytes().saturating_add(SPARE.bytes()));
    // Made at a VM's start, for a memory to come.
    let asked = most > Size::from_bytes(0);
    if asked && free < needed {
        let why = format!("it may take {most}, of {free} that are free {SPARE} must stay so");
        return Err(HostError::new(Code::NoSpace, "write memory to", named(&saving.dir))
            .because(why)
            .hint("make room on the state directory's disk, or stop the VM instead"));
    }
    ensure_private_dir(&saving.dir)?;
    for path in [&saving.memory, &saving.state] {
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(|error| HostError::io("make file", named(path), error))?;
    }
    gone(fs::remove_file(&saving.by))
        .map_err(|error| HostError::io("remove", named(&saving.by), error))
}

pub(super) fn keep(paths: &VmPaths, by: &SavedBy, root: Option<&Path>) -> Result<(), HostError> {
    let (saving, saved) = (paths.saving(), paths.saved());
    if !is_real_dir(&saving.dir)? && is_real_dir(&saved.dir)? {
        return Ok(());
    }
    let failed = |error| HostError::io("keep memory in", named(&saved.dir), error);
    // A device's own cache first: what is in there goes to one of the files.
    if let Some(root) = root {
        File::open(root)
            .and_then(|device| device.sync_all())
            .map_err(|error| HostError::io("sync", named(root), error))?;
    }
    sync_files(&saving.dir).and_then(|()| sync_files(&paths.dir)).map_err(failed)?;
    write_by(&saving.by, by).and_then(|()| File::open(&saving.dir)?.sync_all()).map_err(failed)?;
    // Of a guest that went on long ago.
    remove(&saved.dir)?;
    fs::rename(&saving.dir, &saved.dir).and_then(|()| sync_parent(&saved.dir)).map_err(failed)
}

pub(super) fn unkeep(paths: &VmPaths) -> Result<(), HostError> {
    let (saving, saved) = (paths.saving(), paths.saved());
    if !is_real_dir(&saved.dir)? {
        return Ok(());
    }
    let failed = |error| HostError::io("take back memory in", named(&saved.dir), error);
    remove(&saving.dir)?;
    fs::rename(&saved.dir, &saving.dir).and_then(|()| sync_parent(&saving.dir)).map_err(failed)
}

pub(super) fn discard(paths: &VmPaths) -> Result<(), HostError> {
    let saving = paths.saving();
    for path in [&saving.memory, &saving.state] {
        gone(File::options().write(true).truncate(true).open(path).map(drop))
            .map_err(|error| HostError::io("empty file", named(path), error))?;
    }
    Ok(())
}

/// Readable by all who reach it, for VMMs with users of their own; the directory is its owner's.
pub(super) fn copy(paths: &VmPaths, to: &Path) -> Result<(), HostError> {
    let saving = paths.saving();
    for path in [&saving.memory, &saving.state] {
        let copied = File::open(path).and_then(|file| {
            let copy = sparse::copy(&file, &to.join(path.file_name().unwrap_or_default()))?;
            copy.set_permissions(Permissions::from_mode(0o444))
        });
        copied.map_err(|error| HostError::io("copy file", named(path), error))?;
    }
    Ok(())
}

pub(super) fn link(paths: &VmPaths, from: &Path) -> Result<(), HostError> {
    let saved = paths.saved();
    remove(&saved.dir)?;
    ensure_private_dir(&saved.dir)?;
    for path in [&saved.memory, &saved.state] {
        let source = from.join(path.file_name().unwrap_or_default());
        fs::hard_link(&source, path)
            .map_err(|error| HostError::io("link", named(&source), error))?;
    }
    Ok(())
}

pub(super) fn saved_by(paths: &VmPaths) -> Result<Option<SavedBy>, HostError> {
    let saved = paths.saved();
    if !is_real_dir(&saved.dir)? {
        return Ok(None);
    }
    let text = fs::read_to_string(&saved.by)
        .map_err(|error| HostError::io("read", named(&saved.by), error))?;
    let corrupt = |error| HostError::new(Code::Corrupt, "read", named(&saved.by)).because(error);
    text.parse().map(Some).map_err(corrupt)
}

/// With its directory, durably; gone already is success.
pub(super) fn remove(dir: &Path) -> Result<(), HostError> {
    if !is_real_dir(dir)? {
        return Ok(());
    }
    gone(fs::remove_dir_all(dir))
        .and_then(|()| sync_parent(dir))
        .map_err(|error| HostError::io("remove directory", named(dir), error))
}

fn write_by(path: &Path, by: &SavedBy) -> io::Result<()> {
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{by}")?;
    file.sync_all()
}

/// Every file in the directory. What the guest wrote to its disks may still be in the host's
/// memory, and a memory without its disks is worth nothing.
fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

fn named(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::model::{VmId, VmmKind};

    const FREE: Size = Size::from_mib(1024);

    fn by() -> SavedBy {
        SavedBy { kind: VmmKind::Qemu, version: "7.2.22".into(), accelerator: "tcg".into() }
    }

    fn paths(dir: &Path) -> VmPaths {
        let paths = VmPaths::new(&dir.join("vms"), &dir.join("run"), VmId([3; 16]));
        ensure_private_dir(&paths.dir).unwrap();
        paths
    }

    #[test]
    fn what_was_written_is_kept_once_and_taken_back_to_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        assert_eq!(saved_by(&paths).unwrap(), None);
        ensure_saving(&paths, Size::from_mib(1), FREE).unwrap();
        fs::write(paths.saving().memory, "memory").unwrap();
        let inode = fs::metadata(paths.saving().memory).unwrap().ino();
        for _ in 0..2 {
            keep(&paths, &by(), None).unwrap();
            assert_eq!(saved_by(&paths).unwrap(), Some(by()));
            assert_eq!(fs::read(paths.saved().memory).unwrap(), b"memory");
        }
        for _ in 0..2 {
            unkeep(&paths).unwrap();
            assert_eq!(saved_by(&paths).unwrap(), None);
        }
        assert_eq!(fs::read(paths.saving().memory).unwrap(), b"memory");
        for _ in 0..2 {
            discard(&paths).unwrap();
        }
        let left = fs::metadata(paths.saving().memory).unwrap();
        assert_eq!((left.ino(), left.len()), (inode, 0));
        remove(&paths.saving().dir).unwrap();
        discard(&paths).unwrap();
        assert_eq!(fs::read_dir(&paths.dir).unwrap().count(), 0);
    }

    #[test]
    fn a_later_memory_takes_the_place_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        for text in ["first", "second"] {
            ensure_saving(&paths, Size::from_mib(1), FREE).unwrap();
            fs::write(paths.saving().memory, text).unwrap();
            keep(&paths, &by(), None).unwrap();
            assert_eq!(fs::read_to_string(paths.saved().memory).unwrap(), text);
        }
    }

    #[test]
    fn a_memory_that_may_not_fit_is_refused_with_the_figures() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let error = ensure_saving(&paths, Size::from_mib(1000), FREE).unwrap_err();
        assert_eq!(error.code, Code::NoSpace);
        assert!(!paths.saving().dir.exists());
    }

    #[test]
    fn a_note_that_is_none_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        ensure_saving(&paths, Size::from_mib(1), FREE).unwrap();
        keep(&paths, &by(), None).unwrap();
        fs::write(paths.saved().by, "xen 4").unwrap();
        assert_eq!(saved_by(&paths).unwrap_err().code, Code::Corrupt);
    }
}
