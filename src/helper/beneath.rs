//! Files that somebody else names: resolved beneath a directory of the helper's own arguments
//! without following any link, and looked at through the open descriptor. A path that was checked
//! as text cannot be bent afterwards to another file.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::error::Trouble;
use crate::model::Code;

/// Opens `path`, which must lie below `top`; `flags` beside those that keep it harmless.
pub(super) fn open(top: &Path, path: &Path, flags: OFlags) -> Result<File, Trouble> {
    let failed = |error| Trouble::io("open", path.display().to_string(), error);
    let dir = File::open(top).map_err(failed)?;
    let beneath =
        path.strip_prefix(top).map_err(|_| failed(io::ErrorKind::PermissionDenied.into()))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat2(&dir, beneath, flags, Mode::empty(), resolve);
    file.map(File::from).map_err(|error| failed(error.into()))
}

pub(super) fn refused(path: &Path, why: &'static str) -> Trouble {
    Trouble::new(Code::Denied, "open", path.display().to_string()).because(why)
}
