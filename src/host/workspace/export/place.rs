//! Changes of the host's tree, beneath its root and through no link, all or none of them. What stood
//! there before waits beside until the last is made.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::host::workspace::error::{Context as _, Result};
use crate::model::show_path;

/// What becomes of a path: a file or link that lies ready, or nothing.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: Vec<u8>,
    pub(super) new: Option<PathBuf>,
}

/// `beside`: a directory of the same file system, for what stood there before.
pub(super) fn make(root: &Path, beside: &Path, changes: &[Change]) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(CWD, root, flags, Mode::empty());
    let root = open.context(|| format!("open {}", root.display()))?;
    let mut made = vec![];
    for (number, change) in changes.iter().enumerate() {
        let old = beside.join(format!("old-{number}"));
        match one(&root, change, &old) {
            Ok(()) => made.push((change, old)),
            Err(error) => {
                // The one that failed may have got half of the way.
                made.push((change, old));
                for (change, old) in made.iter().rev() {
                    undo(&root, change, old);
                }
                return Err(error).context(|| format!("write {}", show_path(&change.path)));
            }
        }
    }
    for change in changes.iter().filter(|change| change.new.is_none()) {
        prune(&root, &change.path);
    }
    Ok(())
}

fn one(root: &OwnedFd, change: &Change, old: &Path) -> rustix::io::Result<()> {
    let (parent, name) = parent(root, &change.path, change.new.is_some())?;
    match rustix::fs::renameat(&parent, name, CWD, old) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    match &change.new {
        Some(new) => rustix::fs::renameat(CWD, new, &parent, name),
        None => Ok(()),
    }
}

fn undo(root: &OwnedFd, change: &Change, old: &Path) {
    let Ok((parent, name)) = parent(root, &change.path, false) else { return };
    if let Some(new) = change.new.as_ref().filter(|new| new.symlink_metadata().is_err()) {
        let _ = rustix::fs::renameat(&parent, name, CWD, new);
    }
    if old.symlink_metadata().is_ok() {
        let _ = rustix::fs::renameat(CWD, old, &parent, name);
    }
}

/// The directory of a path, with those above it made if they are to be.
fn parent<'a>(
    root: &OwnedFd,
    path: &'a [u8],
    make: bool,
) -> rustix::io::Result<(OwnedFd, &'a [u8])> {
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = names.pop().unwrap_or_default();
    let mut here = enter(root, b".")?;
    for directory in names {
        here = match enter(&here, directory) {
            Err(Errno::NOENT) if make => {
                rustix::fs::mkdirat(&here, directory, Mode::from_raw_mode(0o777))?;
                enter(&here, directory)?
            }
            other => other?,
        };
    }
    Ok((here, name))
}

fn enter(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
}

/// Directories that a removal left empty, for git keeps none.
fn prune(root: &OwnedFd, path: &[u8]) {
    let mut path = path;
    while let Some(at) = path.iter().rposition(|byte| *byte == b'/') {
        path = path.get(..at).unwrap_or_default();
        let Ok((parent, name)) = parent(root, path, false) else { return };
        if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_or_none_and_never_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (root, beside) = (dir.path().join("root"), dir.path().join("beside"));
        for directory in [&root, &beside, &dir.path().join("outside")] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(root.join("a"), "old a").unwrap();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/b"), "old b").unwrap();
        symlink("../outside", root.join("link")).unwrap();
        let new = |name: &str| {
            let file = beside.join(name);
            fs::write(&file, format!("new {name}")).unwrap();
            Some(file)
        };
        let change = |path: &str, new| Change { path: path.into(), new };
        let bad = [
            change("a", new("1")),
            change("n/e/w", new("2")),
            change("d/b", None),
            change("link/x", new("3")),
        ];
        make(&root, &beside, &bad).unwrap_err();
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "old a");
        assert_eq!(fs::read_to_string(root.join("d/b")).unwrap(), "old b");
        assert!(!root.join("n/e/w").exists());
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        let good = [change("a", new("1")), change("n/e/w", new("2")), change("d/b", None)];
        make(&root, &beside, &good).unwrap();
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "new 1");
        assert_eq!(fs::read_to_string(root.join("n/e/w")).unwrap(), "new 2");
        assert!(!root.join("d").exists(), "left empty");
    }
}
