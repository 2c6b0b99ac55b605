//! One file on its way: a part beside the place of the file, which becomes the file when it is whole.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use sha2::{Digest as _, Sha256};

use crate::entry::Entry;
use crate::place::{modified, remove};

pub(crate) type Digest = [u8; 32];

/// Rights of a part: nobody else's business until the file has its own.
const PART_MODE: u32 = 0o600;
const CHUNK: usize = 256 << 10;
/// A file so large is on disk before its name is, for itself; smaller ones together.
pub(crate) const LARGE: u64 = 8 << 20;
/// How much is written before the disk is told to begin.
const WRITE_BACK: u64 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Part {
    file: Flock<File>,
    dir: Rc<OwnedFd>,
    name: OsString,
    written: u64,
    behind: u64,
}

/// A whole file that waits for its name.
#[derive(Debug)]
pub(crate) struct Whole {
    dir: Rc<OwnedFd>,
    part: OsString,
    name: OsString,
}

impl Part {
    /// The part that a copy left which was broken off, or a new one. Only an own plain file counts.
    pub(crate) fn open(dir: &Rc<OwnedFd>, name: &OsStr) -> io::Result<Self> {
        let usual = part_name(name, None);
        if let Some(part) = Self::take(dir, &usual)? {
            return Ok(part);
        }
        // Somebody else is copying the same file at this moment.
        let own = part_name(name, Some(std::process::id()));
        Self::take(dir, &own)?.ok_or_else(|| Errno::EBUSY.into())
    }

    fn take(dir: &Rc<OwnedFd>, name: &OsStr) -> io::Result<Option<Self>> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let open = |flags| {
            openat(&**dir, name, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(PART_MODE))
        };
        let mut file = File::from(match open(flags) {
            Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => return Err(Errno::EEXIST.into()),
            opened => opened?,
        });
        let meta = file.metadata()?;
        let own = meta.uid() == nix::unistd::geteuid().as_raw();
        if !(meta.is_file() && own && meta.nlink() == 1) {
            unlinkat(&**dir, name, UnlinkatFlags::NoRemoveDir)?;
            file = File::from(open(flags | OFlag::O_EXCL)?);
        }
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, error)) => return Err(error.into()),
        };
        let name = name.to_owned();
        Ok(Some(Self { file, dir: Rc::clone(dir), name, written: 0, behind: 0 }))
    }

    /// How much of it is there, and its digest, if that is of use for a file of this size.
    pub(crate) fn there(&mut self, size: Option<u64>) -> io::Result<Option<(u64, Digest)>> {
        let length = self.file.metadata()?.len();
        let useful = size.is_some_and(|size| length > 0 && length <= size);
        if useful {
            digest(&self.file, length).map(|digest| Some((length, digest)))
        } else {
            Ok(None)
        }
    }

    /// Goes on from there.
    pub(crate) fn begin(&mut self, from: u64) -> io::Result<()> {
        self.file.set_len(from)?;
        self.file.seek(SeekFrom::Start(from))?;
        (self.written, self.behind) = (from, from);
        Ok(())
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.written += data.len() as u64;
        Ok(())
    }

    pub(crate) fn skip(&mut self, length: u64) -> io::Result<()> {
        self.written = self.written.checked_add(length).ok_or(Errno::EFBIG)?;
        self.file.seek(SeekFrom::Start(self.written)).map(drop)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Lets the disk work while more is on its way, so that little is left to wait for.
    pub(crate) fn write_back(&mut self) {
        let length = self.written - self.behind;
        if length < WRITE_BACK {
            return;
        }
        let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
        let (from, length) = (signed(self.behind), signed(length));
        // SAFETY: the descriptor is open. What fails here is told by the sync at the end.
        #[allow(unsafe_code, reason = "sync_file_range has no safe form")]
        let _ = unsafe {
            nix::libc::sync_file_range(
                std::os::fd::AsRawFd::as_raw_fd(&*self.file),
                from,
                length,
                nix::libc::SYNC_FILE_RANGE_WRITE,
            )
        };
        self.behind = self.written;
    }

    /// All of it is there.
    pub(crate) fn whole(self, name: &OsStr, entry: &Entry, durable: bool) -> io::Result<Whole> {
        self.file.set_len(self.written)?;
        fchmod(&*self.file, Mode::from_bits_truncate(entry.mode))?;
        futimens(&*self.file, &TimeSpec::UTIME_OMIT, &modified(entry))?;
        if durable && self.written >= LARGE {
            self.file.sync_all()?;
        }
        Ok(Whole { dir: self.dir, part: self.name, name: name.to_owned() })
    }

    /// The file cannot be had; its part is of no use.
    pub(crate) fn discard(self) {
        remove(&*self.dir, &self.name);
    }
}

impl Whole {
    pub(crate) fn name(self) -> io::Result<()> {
        Ok(renameat(&*self.dir, self.part.as_os_str(), &*self.dir, self.name.as_os_str())?)
    }

    pub(crate) fn discard(self) {
        remove(&*self.dir, &self.part);
    }
}

/// Of any name the same length: names may be as long as they can be.
pub(crate) fn part_name(name: &OsStr, owner: Option<u32>) -> OsString {
    let digest = Sha256::digest(name.as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let owner = owner.map(|pid| format!("-{pid}")).unwrap_or_default();
    format!(".banger-{hex}{owner}.part").into()
}

/// Of the first `length` bytes.
pub(crate) fn digest(file: &File, length: u64) -> io::Result<Digest> {
    let mut file: &File = file;
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read(buffer.get_mut(..room).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        left -= read as u64;
    }
    Ok(hash.finalize().into())
}

/// For reading, if it is a plain file.
pub(crate) fn open_plain<F: AsFd>(dir: F, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(File::from(openat(dir, name, flags, Mode::empty())?))
}
