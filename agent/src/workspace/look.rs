//! What the guest itself has changed since the last commit. Stat first, content only where that does
//! not vouch. New directories are named and not entered: the host knows what is ignored in them.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_agent::contract::workspace::{Answer, Change, How, Kind, Moved, is_plain, pieces};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use sha2::{Digest as _, Sha256};

use super::fault::{Context as _, Fault, Result};
use super::kept::{Item, Kept, Seen, Stat};
use super::place::Place;
use super::refs;
use super::talk::Talk;

pub(super) fn changes(place: &Place, kept: &Kept, talk: &mut Talk) -> Result<()> {
    for piece in pieces(found(place, kept)?, |change| change.path.len() + 16) {
        talk.say(&Answer::Changed(piece))?;
    }
    let moved = moved(kept, place);
    for piece in pieces(moved, |moved| moved.name.len() + 128) {
        talk.say(&Answer::Moved(piece))?;
    }
    talk.say(&Answer::Done)
}

pub(super) fn list(place: &Place, directories: Vec<Vec<u8>>, talk: &mut Talk) -> Result<()> {
    let mut changes = vec![];
    for directory in directories {
        if !is_plain(&directory) {
            return Err(Fault::path("not a path of the workspace".into()));
        }
        for_each(&place.at(&directory), &directory, |path, inside| {
            let how = if inside.is_dir() { How::NewDirectory } else { How::New };
            changes.push(Change { path: path.to_vec(), how });
            Ok(())
        })?;
    }
    for piece in pieces(changes, |change| change.path.len() + 16) {
        talk.say(&Answer::Changed(piece))?;
    }
    talk.say(&Answer::Done)
}

pub(super) fn found(place: &Place, kept: &Kept) -> Result<Vec<Change>> {
    let mut items = HashMap::with_capacity(kept.entries.len());
    let mut directories = HashSet::new();
    for item in &kept.entries {
        let path = item.entry.path.as_slice();
        if path.starts_with(b".git/") || item.entry.kind == Kind::Gone {
            continue;
        }
        items.insert(path, item);
        let mut rest = path;
        while let Some(at) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = rest.get(..at).unwrap_or_default();
            if !directories.insert(rest) {
                break;
            }
        }
    }
    let mut walk = Walk { kept, items, directories, changes: vec![] };
    walk.enter(&place.root, b"")?;
    let Walk { items, mut changes, .. } = walk;
    // What was not met on the way is not there.
    changes.extend(items.into_keys().map(|path| Change { path: path.to_vec(), how: How::Deleted }));
    // Git writes it anew when it only looks at files: the host tells whether that means anything.
    let index = kept.entries.iter().find(|item| item.entry.path == b".git/index");
    if let Some(item) = index
        && as_kept(kept, item, &place.at(&item.entry.path))?.is_none()
    {
        changes.push(Change { path: item.entry.path.clone(), how: How::Modified });
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

struct Walk<'a> {
    kept: &'a Kept,
    items: HashMap<&'a [u8], &'a Item>,
    directories: HashSet<&'a [u8]>,
    changes: Vec<Change>,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Path, name: &[u8]) -> Result<()> {
        let mut below = vec![];
        for_each(directory, name, |path, inside| {
            if path == b".git" {
                return Ok(());
            }
            let is_dir = inside.is_dir();
            let mut changed = |how| self.changes.push(Change { path: path.to_vec(), how });
            match self.items.remove(path) {
                // Where a file was: it is gone, and the directory is new.
                Some(_) if is_dir => {
                    changed(How::Deleted);
                    changed(How::NewDirectory);
                }
                Some(item) => {
                    let here = || directory.join(OsStr::from_bytes(inside.name.to_bytes()));
                    if is_kept(self.kept, item, inside.look(), here)?.is_none() {
                        changed(How::Modified);
                    }
                }
                None if is_dir && self.directories.contains(path) => below.push(path.to_vec()),
                None if is_dir => changed(How::NewDirectory),
                None => changed(How::New),
            }
            Ok(())
        })?;
        // With this one closed, for they may be nested deeper than files may be open.
        for path in below {
            self.enter(&directory.join(OsStr::from_bytes(last_name(&path))), &path)?;
        }
        Ok(())
    }
}

/// By stat, else by content; then what vouches for it from now on.
pub(super) fn as_kept(kept: &Kept, item: &Item, here: &Path) -> Result<Option<Stat>> {
    is_kept(kept, item, Seen::at(here), || here.to_owned())
}

fn is_kept(
    kept: &Kept,
    item: &Item,
    seen: Option<Seen>,
    here: impl FnOnce() -> PathBuf,
) -> Result<Option<Stat>> {
    let Some(seen) = seen.filter(|seen| seen.may_be(&item.entry)) else { return Ok(None) };
    let same = kept.vouches(item, seen.stat) || hash(&here(), item.entry.kind)? == item.entry.hash;
    Ok(same.then_some(seen.stat))
}

fn hash(path: &Path, kind: Kind) -> Result<[u8; 32]> {
    let what = || format!("read {}", path.display());
    if kind == Kind::Link {
        let target = fs::read_link(path).context(what)?;
        return Ok(Sha256::digest(target.as_os_str().as_bytes()).into());
    }
    let mut file = File::open(path).context(what)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer).context(what)? {
            0 => return Ok(hasher.finalize().into()),
            length => hasher.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// What a directory has.
struct Inside<'a> {
    directory: BorrowedFd<'a>,
    name: &'a CStr,
    kind: Option<Type>,
}

impl Inside<'_> {
    fn look(&self) -> Option<Seen> {
        self.stat().as_ref().map(Seen::of)
    }

    fn is_dir(&self) -> bool {
        match self.kind {
            Some(kind) => kind == Type::Directory,
            // A file system that does not tell.
            None => self.stat().is_some_and(|stat| {
                SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR
            }),
        }
    }

    fn stat(&self) -> Option<FileStat> {
        fstatat(self.directory, self.name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }
}

/// With the path of each. By name within an open directory: no path is looked up twice.
fn for_each(
    directory: &Path,
    name: &[u8],
    mut each: impl FnMut(&[u8], &Inside<'_>) -> Result<()>,
) -> Result<()> {
    let what = || format!("look into {}", directory.display());
    // A link is an entry of its directory and never a directory itself.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = match nix::fcntl::open(directory, flags, Mode::empty()) {
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        open => open.context(what)?,
    };
    let mut list = Dir::from_fd(open.try_clone().context(what)?).context(what)?;
    let mut path = match name {
        b"" => vec![],
        name => [name, b"/"].concat(),
    };
    let length = path.len();
    for entry in list.iter() {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        path.truncate(length);
        path.extend_from_slice(name.to_bytes());
        each(&path, &Inside { directory: open.as_fd(), name, kind: entry.file_type() })?;
    }
    Ok(())
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn moved(kept: &Kept, place: &Place) -> Vec<Moved> {
    let now = refs::all(&place.root.join(".git"));
    let was = |name: &[u8]| kept.references.iter().find(|one| one.name == name);
    let is = |name: &[u8]| now.iter().find(|one| one.name == name);
    let mut names: Vec<_> =
        kept.references.iter().chain(&now).map(|one| one.name.clone()).collect();
    names.sort();
    names.dedup();
    let moved = names.into_iter().map(|name| Moved {
        was: was(&name).map(|one| one.value.clone()),
        is: is(&name).map(|one| one.value.clone()),
        name,
    });
    moved.filter(|moved| moved.was != moved.is).collect()
}
