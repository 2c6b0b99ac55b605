//! What a file is besides its name and content, as the protocol says it and as it is set.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::packet::{Fields, Reply};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;
const MODE_BITS: u32 = 0o7777;

/// Those that were given.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Accessed and modified, in seconds.
    pub(super) times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn read(fields: &mut Fields<'_>) -> io::Result<Self> {
        let flags = fields.u32()?;
        let has = |flag| flags & flag != 0;
        let mut given = Self::default();
        if has(SIZE) {
            given.size = Some(fields.u64()?);
        }
        if has(OWNER) {
            given.owner = Some((fields.u32()?, fields.u32()?));
        }
        if has(MODE) {
            given.mode = Some(fields.u32()? & MODE_BITS);
        }
        if has(TIMES) {
            given.times = Some((fields.u32()?, fields.u32()?));
        }
        if has(EXTENDED) {
            for _ in 0..fields.u32()? {
                fields.string()?;
                fields.string()?;
            }
        }
        Ok(given)
    }

    /// In OpenSSH's order, to the end even if one is refused; the first refusal is told.
    pub(super) fn set(&self, path: &Path) -> io::Result<()> {
        let results = [
            self.size.map(|size| {
                let file = std::fs::OpenOptions::new().write(true).open(path)?;
                file.set_len(size)
            }),
            self.mode.map(|mode| std::fs::set_permissions(path, Permissions::from_mode(mode))),
            self.times.map(|times| set_times(path, times, UtimensatFlags::FollowSymlink)),
            self.owner.map(|owner| set_owner(path, owner, AtFlags::empty())),
        ];
        results.into_iter().flatten().collect()
    }

    /// Of the link itself. Linux has no modes of links.
    pub(super) fn set_of_link(&self, path: &Path) -> io::Result<()> {
        let results = [
            self.times.map(|times| set_times(path, times, UtimensatFlags::NoFollowSymlink)),
            self.owner.map(|owner| set_owner(path, owner, AtFlags::AT_SYMLINK_NOFOLLOW)),
        ];
        results.into_iter().flatten().collect()
    }

    pub(super) fn set_open(&self, file: &File) -> io::Result<()> {
        let results = [
            self.size.map(|size| file.set_len(size)),
            self.mode.map(|mode| file.set_permissions(Permissions::from_mode(mode))),
            self.times.map(|(accessed, modified)| {
                Ok(futimens(file, &seconds(accessed), &seconds(modified))?)
            }),
            self.owner.map(|(uid, gid)| {
                Ok(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
            }),
        ];
        results.into_iter().flatten().collect()
    }
}

fn set_times(
    path: &Path,
    (accessed, modified): (u32, u32),
    links: UtimensatFlags,
) -> io::Result<()> {
    Ok(utimensat(nix::fcntl::AT_FDCWD, path, &seconds(accessed), &seconds(modified), links)?)
}

fn set_owner(path: &Path, (uid, gid): (u32, u32), links: AtFlags) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(fchownat(nix::fcntl::AT_FDCWD, path, Some(uid), Some(gid), links)?)
}

fn seconds(time: u32) -> TimeSpec {
    TimeSpec::new(time.into(), 0)
}

pub(super) fn write(reply: &mut Reply<'_>, meta: &Metadata) {
    // Times that the protocol cannot say are said as near as it can.
    let time = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    reply.u32(SIZE | OWNER | MODE | TIMES).u64(meta.len()).u32(meta.uid()).u32(meta.gid());
    reply.u32(meta.mode()).u32(time(meta.atime())).u32(time(meta.mtime()));
}

/// Without any: where there is nothing to say.
pub(super) fn write_none(reply: &mut Reply<'_>) {
    reply.u32(0);
}
