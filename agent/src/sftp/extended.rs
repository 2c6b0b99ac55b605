//! OpenSSH's extensions of the protocol (its file PROTOCOL, section 4).

use std::env;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, Statvfs, fstatvfs, statvfs};

use super::attributes::Attributes;
use super::files::{MAX_HANDLES, Open};
use super::packet::{Fields, MAX_PACKET};
use super::server::{Answer, MAX_DATA, Server};
use crate::ssh::home_of;

/// What is told of when a client comes.
pub(super) const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

pub(super) fn act(server: &mut Server, mut fields: Fields<'_>) -> io::Result<Answer> {
    match fields.string()? {
        b"posix-rename@openssh.com" => {
            std::fs::rename(fields.path()?, fields.path()?).map(|()| Answer::Done)
        }
        b"hardlink@openssh.com" => {
            std::fs::hard_link(fields.path()?, fields.path()?).map(|()| Answer::Done)
        }
        b"fsync@openssh.com" => {
            server.files.file(fields.string()?)?.0.sync_all().map(|()| Answer::Done)
        }
        b"lsetstat@openssh.com" => {
            let path = fields.path()?;
            Attributes::read(&mut fields)?.set_of_link(path).map(|()| Answer::Done)
        }
        b"statvfs@openssh.com" => Ok(volume(&statvfs(fields.path()?)?)),
        b"fstatvfs@openssh.com" => match server.files.get(fields.string()?)? {
            Open::File(file, _) => Ok(volume(&fstatvfs(&*file)?)),
            Open::Dir(path, _) => Ok(volume(&statvfs(path.as_path())?)),
        },
        b"limits@openssh.com" => Ok(Answer::Extended(
            [MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES].map(|limit| limit as u64).to_vec(),
        )),
        b"expand-path@openssh.com" => expand(fields.path()?).map(Answer::Name),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn volume(stat: &Statvfs) -> Answer {
    const READ_ONLY: u64 = 1;
    const NO_SETUID: u64 = 2;
    let flag = |flag, value| if stat.flags().contains(flag) { value } else { 0 };
    let flags = flag(FsFlags::ST_RDONLY, READ_ONLY) | flag(FsFlags::ST_NOSUID, NO_SETUID);
    Answer::Extended(vec![
        stat.block_size(),
        stat.fragment_size(),
        stat.blocks(),
        stat.blocks_free(),
        stat.blocks_available(),
        stat.files(),
        stat.files_free(),
        stat.files_available(),
        stat.filesystem_id(),
        flags,
        stat.name_max(),
    ])
}

/// `~`, `~/x` and `~user/x`, and what is relative to where the client is.
fn expand(path: &Path) -> io::Result<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let Some(rest) = bytes.strip_prefix(b"~") else { return absolute(path.to_owned()) };
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (user, below) = rest.split_at(end);
    let home = match user {
        b"" => env::var_os("HOME").map(PathBuf::from),
        user => std::str::from_utf8(user).ok().and_then(home_of),
    };
    let home = home.ok_or(io::ErrorKind::NotFound)?;
    let below = below.strip_prefix(b"/").unwrap_or_default();
    absolute(match below {
        b"" => home,
        below => home.join(Path::new(std::ffi::OsStr::from_bytes(below))),
    })
}

fn absolute(path: PathBuf) -> io::Result<PathBuf> {
    if path.is_absolute() { Ok(path) } else { Ok(env::current_dir()?.join(path)) }
}
