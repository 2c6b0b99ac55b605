//! A workspace's directory: whether the path can be one, its lock, what is there already.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use banger_agent::contract::workspace::{Found, Refusal, STATE_DIR, is_plain};
use sha2::{Digest as _, Sha256};

use super::fault::{Context as _, Fault, Result};
use super::kept::{self, Kept};

#[derive(Debug)]
pub(super) struct Place {
    /// With every link before its last name resolved.
    pub(super) root: PathBuf,
    /// Where a new tree is put together.
    pub(super) nursery: PathBuf,
    /// A name in the kernel that one process can have; it goes with the process.
    _lock: UnixListener,
}

impl Place {
    /// Makes the directories above it.
    pub(super) fn open(path: &[u8]) -> Result<Self> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let relative = path.strip_prefix(b"/").unwrap_or_default();
        if !is_plain(relative) {
            return Err(Fault::path(format!("{shown:?} is no absolute path of plain names")));
        }
        let path = Path::new(OsStr::from_bytes(path));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Fault::path(format!("{shown:?} is no path of a directory")));
        };
        fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
        let parent = parent.canonicalize().context(|| format!("find {}", parent.display()))?;
        let root = parent.join(name);
        let nursery =
            parent.join(OsStr::from_bytes(&[b".", name.as_bytes(), b".banger-new"].concat()));
        let lock = lock(&root)?;
        Ok(Self { root, nursery, _lock: lock })
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root.join(STATE_DIR)
    }

    /// Of a path of the workspace.
    pub(super) fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    /// What is there, and what was committed of it last.
    pub(super) fn look(&self) -> Result<(Found, Option<Kept>)> {
        let other = |what: &str| Ok((Found::Other { what: what.to_owned() }, None));
        let meta = match self.root.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Found::Nothing, None));
            }
            Err(error) => return Err(error).context(|| format!("look at {}", self.root.display())),
        };
        if meta.is_symlink() {
            return other("a symbolic link");
        }
        if !meta.is_dir() {
            return other("no directory");
        }
        if kept::exists(self) {
            let kept = Kept::load(self)?;
            return Ok((Found::Ours { note: kept.note.clone() }, Some(kept)));
        }
        let mut inside = fs::read_dir(&self.root).context(|| "look into the guest path".into())?;
        match inside.next() {
            None => Ok((Found::Nothing, None)),
            Some(_) => other("a directory that holds something else"),
        }
    }
}

fn lock(root: &Path) -> Result<UnixListener> {
    let mut name = b"banger-workspace-".to_vec();
    name.extend(Sha256::digest(root.as_os_str().as_bytes()));
    let address = SocketAddr::from_abstract_name(&name).context(|| "name the lock".into())?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Fault::Refused {
            code: Refusal::Busy,
            message: format!("somebody else is at {} just now", root.display()),
        },
        _ => Fault::Refused { code: Refusal::Failed, message: format!("take the lock: {error}") },
    })
}
