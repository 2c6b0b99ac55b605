//! Stat and content of a repository's files, in parallel. Every path is opened beneath the root and
//! through no link, so nothing outside is ever read, whatever the tree becomes meanwhile.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::error::{Context as _, Result};
use crate::model::{Digest, FileStat};

const BUFFER: usize = 128 << 10;
/// What git-lfs leaves in place of content that was not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

/// A directory whose files are read.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// What reading came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hashed {
    Content {
        hash: Digest,
        is_pointer: bool,
    },
    /// It is not there any more.
    Gone,
    Unreadable,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
        Ok(Self(opened.context(|| format!("open {}", path.display()))?))
    }

    /// `None`: no file and no link is there.
    pub(super) fn stat_all(&self, paths: &[&[u8]]) -> Vec<Option<FileStat>> {
        // Neighbours share their directory, so a thread gets a run of them.
        let share = paths.len().div_ceil(threads()).max(1);
        let mut all = Vec::with_capacity(paths.len());
        std::thread::scope(|scope| {
            let runs: Vec<_> = paths
                .chunks(share)
                .map(|run| scope.spawn(move || Directories::new(self).stat_run(run)))
                .collect();
            for run in runs {
                all.extend(run.join().unwrap_or_default());
            }
        });
        all.resize(paths.len(), None);
        all
    }

    /// Of files and, where it says so, links.
    pub(super) fn hash_all(&self, paths: &[(&[u8], bool)]) -> Vec<Hashed> {
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut done, mut buffer) = (vec![], vec![0; BUFFER]);
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((path, is_link)) = paths.get(at) else { return done };
                done.push((at, self.hash(path, *is_link, &mut buffer)));
            }
        };
        let mut all = vec![Hashed::Unreadable; paths.len()];
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads().min(paths.len())).map(|_| scope.spawn(work)).collect();
            for (at, hashed) in workers.into_iter().flat_map(|one| one.join().unwrap_or_default()) {
                if let Some(place) = all.get_mut(at) {
                    *place = hashed;
                }
            }
        });
        all
    }

    fn hash(&self, path: &[u8], is_link: bool, buffer: &mut [u8]) -> Hashed {
        let hashed = match is_link {
            true => self.read_link(path).map_err(std::io::Error::from).map(|target| {
                Hashed::Content { hash: Digest(Sha256::digest(target).into()), is_pointer: false }
            }),
            false => self.hash_file(path, buffer),
        };
        hashed.unwrap_or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Hashed::Gone,
            _ => Hashed::Unreadable,
        })
    }

    fn hash_file(&self, path: &[u8], buffer: &mut [u8]) -> std::io::Result<Hashed> {
        let mut file = self.open_file(path)?;
        let (mut hasher, mut is_pointer, mut first) = (Sha256::new(), false, true);
        loop {
            let length = file.read(buffer)?;
            let read = buffer.get(..length).unwrap_or_default();
            if std::mem::take(&mut first) {
                is_pointer = read.starts_with(LFS_POINTER);
            }
            if length == 0 {
                let hash = Digest(hasher.finalize().into());
                return Ok(Hashed::Content { hash, is_pointer });
            }
            hasher.update(read);
        }
    }

    /// Whether anything at all is.
    pub(super) fn is_there(&self, path: &[u8]) -> bool {
        self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC).is_ok()
    }

    pub(super) fn open_file(&self, path: &[u8]) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(self.open_beneath(path, flags)?.into())
    }

    pub(super) fn read_link(&self, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let link = self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        Ok(rustix::fs::readlinkat(link, c"", vec![])?.into_bytes())
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)
    }
}

/// Remembers the directory of the last path: most files have the same one as the one before.
struct Directories<'a> {
    root: &'a Root,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Directories<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, last: None }
    }

    fn stat_run(mut self, paths: &[&[u8]]) -> Vec<Option<FileStat>> {
        paths.iter().map(|path| self.stat(path)).collect()
    }

    fn stat(&mut self, path: &[u8]) -> Option<FileStat> {
        let stat = |directory: std::os::fd::BorrowedFd<'_>, name: &[u8]| {
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()
        };
        let found = match path.iter().rposition(|byte| *byte == b'/') {
            None => stat(self.root.0.as_fd(), path),
            Some(at) => {
                let (above, name) = (path.get(..at)?, path.get(at + 1..)?);
                if self.last.as_ref().is_none_or(|(last, _)| last.as_slice() != above) {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    self.last = Some((above.to_vec(), self.root.open_beneath(above, flags).ok()?));
                }
                stat(self.last.as_ref()?.1.as_fd(), name)
            }
        };
        file_stat(&found?)
    }
}

/// `None` for what git does not keep: directories, pipes, devices.
pub(super) fn file_stat(stat: &Stat) -> Option<FileStat> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile && kind != FileType::Symlink {
        return None;
    }
    let ns = |seconds: i64, nanos: u64| {
        seconds.saturating_mul(1_000_000_000) + i64::try_from(nanos).unwrap_or(0)
    };
    Some(FileStat {
        is_link: kind == FileType::Symlink,
        mode: stat.st_mode & 0o777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        inode: stat.st_ino,
    })
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_is_looked_at_or_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("sub/file"), "x").unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("../secret", root.join("link")).unwrap();
        let open = Root::open(&root).unwrap();
        let paths: [&[u8]; 6] =
            [b"link", b"nothing", b"sub", b"sub/file", b"up/secret", b"../secret"];
        let stats = open.stat_all(&paths);
        assert!(stats[0].unwrap().is_link, "a link is kept as one");
        assert_eq!((stats[1], stats[2]), (None, None));
        assert_eq!(stats[3].unwrap().size, 1);
        assert_eq!((stats[4], stats[5]), (None, None), "led outside");
        let hashed = open.hash_all(&[
            (b"link", true),
            (b"link", false),
            (b"up/secret", false),
            (b"../secret", false),
            (b"nothing", false),
            (b"sub/file", false),
        ]);
        let hash = |content: &str| Hashed::Content {
            hash: Digest(Sha256::digest(content).into()),
            is_pointer: false,
        };
        assert_eq!(hashed[0], hash("../secret"), "its target is its content");
        assert_eq!(hashed[1..4], [Hashed::Unreadable, Hashed::Unreadable, Hashed::Unreadable]);
        assert_eq!(hashed[4], Hashed::Gone);
        assert_eq!(hashed[5], hash("x"));
    }
}
