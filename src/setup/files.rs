//! Files and directories as they should be: made, replaced as a whole, or left alone.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::error::SetupError;

/// How something is to be.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// Its owner is root unless told.
    Dir {
        path: PathBuf,
        mode: u32,
        owner: Option<(u32, u32)>,
    },
    File {
        path: PathBuf,
        text: String,
    },
    /// One that belongs to the administrator once it is there.
    FirstFile {
        path: PathBuf,
        text: String,
    },
    Program {
        from: PathBuf,
        path: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Made,
    Replaced,
    /// Was as it should be.
    Kept,
    Adjusted,
    Removed,
    Started,
    Restarted,
    Stopped,
}

impl Did {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Replaced => "replaced",
            Self::Kept => "kept",
            Self::Adjusted => "adjusted",
            Self::Removed => "removed",
            Self::Started => "started",
            Self::Restarted => "restarted",
            Self::Stopped => "stopped",
        }
    }
}

/// What was done, or would be, to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub did: Did,
    pub what: String,
}

impl Change {
    #[must_use]
    pub fn new(did: Did, what: impl fmt::Display) -> Self {
        Self { did, what: what.to_string() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9}  {}", self.did.as_str(), self.what)
    }
}

/// With `dry`, only says what it would do.
pub(super) fn apply(item: &Item, dry: bool) -> Result<Change, SetupError> {
    match item {
        Item::Dir { path, mode, owner } => directory(path, *mode, *owner, dry),
        Item::File { path, text } => file(path, text.as_bytes(), 0o644, dry),
        Item::FirstFile { path, .. } if path.exists() => Ok(Change::new(Did::Kept, path.display())),
        Item::FirstFile { path, text } => file(path, text.as_bytes(), 0o644, dry),
        Item::Program { from, path } => {
            let bytes = fs::read(from).map_err(SetupError::io("read", from))?;
            file(path, &bytes, 0o755, dry)
        }
    }
}

fn directory(
    path: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    dry: bool,
) -> Result<Change, SetupError> {
    let says = |did| Change::new(did, path.display());
    let failed = |error| SetupError::io("make directory", path)(error);
    let (uid, gid) = owner.unwrap_or((0, 0));
    let own = |path: &Path| match nix::unistd::geteuid().is_root() {
        true => chown(path, Some(uid), Some(gid)),
        false => Ok(()),
    };
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_dir() => {
            Err(SetupError::refused(format!("{} is there and no directory", path.display())))
        }
        // The administrator may have other ideas of who reads it; whose it is must be right.
        Ok(meta) if owner.is_none_or(|owner| owner == (meta.uid(), meta.gid())) => {
            Ok(says(Did::Kept))
        }
        Ok(_) if dry => Ok(says(Did::Adjusted)),
        Ok(_) => own(path).map(|()| says(Did::Adjusted)).map_err(failed),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
        Err(_) if dry => Ok(says(Did::Made)),
        Err(_) => {
            if let Some(above) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(failed)?;
            }
            DirBuilder::new().mode(mode).create(path).map_err(failed)?;
            // The umask may have taken something away.
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
            own(path).map(|()| says(Did::Made)).map_err(failed)
        }
    }
}

fn file(path: &Path, bytes: &[u8], mode: u32, dry: bool) -> Result<Change, SetupError> {
    let did = match fs::read(path) {
        Ok(there) if there == bytes => Did::Kept,
        Ok(_) => Did::Replaced,
        Err(error) if error.kind() == ErrorKind::NotFound => Did::Made,
        Err(error) => return Err(SetupError::io("read", path)(error)),
    };
    if did != Did::Kept && !dry {
        replace(path, bytes, mode).map_err(SetupError::io("write", path))?;
    }
    Ok(Change::new(did, path.display()))
}

/// Whoever runs or reads the old one keeps it, and nobody ever sees half of the new one.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = beside(path, "new");
    remove(&new)?;
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        drop(remove(&new));
    }
    written
}

/// `/a/.name.what`, in the same directory and so on the same file system.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// Whether there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_right_is_left_alone_and_a_dry_run_touches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let from = at("from");
        fs::write(&from, "program").unwrap();
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let items = [
            Item::Dir { path: at("a/b"), mode: 0o711, owner: Some(own) },
            Item::File { path: at("unit"), text: "one".into() },
            Item::FirstFile { path: at("config"), text: "mine".into() },
            Item::Program { from, path: at("a/b/program") },
        ];
        let all =
            |dry| -> Vec<Did> { items.iter().map(|item| apply(item, dry).unwrap().did).collect() };
        assert_eq!(all(true), [Did::Made; 4]);
        assert!(!at("a").exists() && !at("unit").exists());
        assert_eq!(all(false), [Did::Made; 4]);
        assert_eq!(all(false), [Did::Kept; 4]);
        assert_eq!((mode(&at("a/b")), mode(&at("unit"))), (0o711, 0o644));
        assert_eq!(mode(&at("a/b/program")), 0o755);

        fs::write(at("unit"), "two").unwrap();
        fs::write(at("config"), "theirs").unwrap();
        assert_eq!(all(true), [Did::Kept, Did::Replaced, Did::Kept, Did::Kept]);
        assert_eq!(all(false), [Did::Kept, Did::Replaced, Did::Kept, Did::Kept]);
        assert_eq!(fs::read_to_string(at("unit")).unwrap(), "one");
        assert_eq!(fs::read_to_string(at("config")).unwrap(), "theirs");
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 4, "nothing half-made is left");
    }

    #[test]
    fn a_file_in_a_directorys_place_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "").unwrap();
        let item = Item::Dir { path: path.clone(), mode: 0o755, owner: None };
        assert!(apply(&item, false).unwrap_err().to_string().contains("no directory"));
        assert!(path.is_file());
    }
}
