//! Where a receiver puts what it gets: directories reached from one another by their descriptors,
//! so that no name and no link leads elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags};
use nix::sys::stat::{fchmodat, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::entry::{Entry, Kind};
use crate::error::{At, CopyError};

/// Rights of a directory that is being filled; it gets its own at the end.
const FILLING: u32 = 0o700;

/// The root of a copy.
#[derive(Debug)]
pub(crate) struct Place {
    root: Rc<OwnedFd>,
    path: PathBuf,
    /// What the one entry at the top is called here instead.
    name: Option<Vec<u8>>,
    /// The last directory that was asked for; its neighbours ask next.
    last: Option<(u32, Rc<OwnedFd>)>,
}

impl Place {
    /// As `cp` has it: into `path` if that is a directory, else under that name.
    pub(crate) fn open(path: &Path, entries: &[Entry]) -> Result<Self, CopyError> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let new = |dir: OwnedFd, path: &Path, name| Self {
            root: Rc::new(dir),
            path: path.to_owned(),
            name,
            last: None,
        };
        match open_dir(AT_FDCWD, path, OFlag::empty()) {
            Ok(dir) => {
                if entries.iter().any(|entry| entry.name.is_empty()) {
                    return Err(CopyError::refused(path, "is a directory; name the file"));
                }
                return Ok(new(dir, path, None));
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => return Err(error).at("open", path),
        }
        let mut tops = entries.iter().filter(|entry| entry.parent.is_none());
        let (top, more) = (tops.next(), tops.next().is_some());
        let is_dir = top.is_some_and(|top| top.kind == Kind::Dir);
        let ends_as_dir = path.as_os_str().as_bytes().ends_with(b"/");
        let name = path.file_name().filter(|_| !more && (is_dir || !ends_as_dir));
        let Some(name) = name else {
            return Err(CopyError::refused(path, "there is no such directory"));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        let dir = open_dir(AT_FDCWD, parent, OFlag::empty()).at("open", parent)?;
        Ok(new(dir, parent, Some(name.as_bytes().to_vec())))
    }

    pub(crate) fn name<'a>(&'a self, entry: &'a Entry) -> &'a OsStr {
        let given = self.name.as_deref().filter(|_| entry.parent.is_none());
        OsStr::from_bytes(given.unwrap_or(&entry.name))
    }

    /// For people.
    pub(crate) fn path(&self, entries: &[Entry], index: u32) -> PathBuf {
        let mut names = vec![];
        let mut at = Some(index);
        while let Some(entry) = at.and_then(|at| entries.get(at as usize)) {
            names.push(self.name(entry));
            at = entry.parent;
        }
        let mut path = if self.path == Path::new(".") { PathBuf::new() } else { self.path.clone() };
        path.extend(names.iter().rev());
        path
    }

    /// Makes all directories, parents first. One that is there already is as good.
    pub(crate) fn make_dirs(&mut self, entries: &[Entry]) -> Result<(), CopyError> {
        let is_dir = |entry: &Entry| matches!(entry.kind, Kind::Dir | Kind::Way);
        for (index, entry) in (0..).zip(entries).filter(|(_, entry)| is_dir(entry)) {
            let made = self.dir(entries, entry.parent).and_then(|dir| {
                match mkdirat(&*dir, self.name(entry), Mode::from_bits_truncate(FILLING)) {
                    Ok(()) | Err(Errno::EEXIST) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
            let made = made.and_then(|()| self.dir(entries, Some(index)).map(drop));
            made.at("make directory", &self.path(entries, index))?;
        }
        Ok(())
    }

    /// Gives directories their rights and times, children first: what is done in one changes its time.
    pub(crate) fn finish_dirs(&mut self, entries: &[Entry]) -> Result<(), CopyError> {
        let dirs = (0..).zip(entries).filter(|(_, entry)| entry.kind == Kind::Dir);
        for (index, entry) in dirs.collect::<Vec<_>>().into_iter().rev() {
            let finished = self
                .dir(entries, entry.parent)
                .and_then(|dir| Ok(set(&*dir, self.name(entry), entry)?));
            finished.at("finish directory", &self.path(entries, index))?;
        }
        Ok(())
    }

    /// The directory that `index` is; `None` is the root.
    pub(crate) fn dir(&mut self, entries: &[Entry], index: Option<u32>) -> io::Result<Rc<OwnedFd>> {
        let Some(index) = index else { return Ok(Rc::clone(&self.root)) };
        if let Some((_, dir)) = self.last.as_ref().filter(|(last, _)| *last == index) {
            return Ok(Rc::clone(dir));
        }
        let entry = entries.get(index as usize).ok_or(Errno::ENOENT)?;
        let parent = self.dir(entries, entry.parent)?;
        let dir = Rc::new(open_dir(&*parent, self.name(entry), OFlag::O_NOFOLLOW)?);
        self.last = Some((index, Rc::clone(&dir)));
        Ok(dir)
    }

    /// All of the file system that the root is on.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let dir = openat(&*self.root, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let dir = File::from(dir);
        // SAFETY: the descriptor is open.
        #[allow(unsafe_code, reason = "syncfs has no safe form in this crate")]
        let done = unsafe { nix::libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&dir)) };
        Ok(Errno::result(done).map(drop)?)
    }
}

fn open_dir<F: AsFd, P: nix::NixPath + ?Sized>(
    at: F,
    path: &P,
    flags: OFlag,
) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// Rights and time of what `name` is, unless that is a link.
pub(crate) fn set<F: AsFd>(dir: F, name: &OsStr, entry: &Entry) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(entry.mode);
    fchmodat(dir.as_fd(), name, mode, FchmodatFlags::FollowSymlink)?;
    set_time(dir, name, entry)
}

pub(crate) fn set_time<F: AsFd>(dir: F, name: &OsStr, entry: &Entry) -> nix::Result<()> {
    let accessed = TimeSpec::UTIME_OMIT;
    utimensat(dir, name, &accessed, &modified(entry), UtimensatFlags::NoFollowSymlink)
}

pub(crate) fn modified(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.modified.0, i64::from(entry.modified.1))
}

/// Of the name itself.
pub(crate) fn look<F: AsFd>(dir: F, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is not there need not be.
pub(crate) fn remove<F: AsFd>(dir: F, name: &OsStr) {
    let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
}
