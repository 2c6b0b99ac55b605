//! A tree that is to be, put together beside the one there is: whole, in a nursery, where there is
//! none yet; else what is different of it, below the state directory. Dropped without a commit it
//! leaves nothing.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_agent::contract::workspace::{Answer, Entry, Kind, MAX_DATA, Refusal, is_plain, pieces};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::fault::{Context as _, Fault, Result};
use super::kept::{Item, Kept, Stat};
use super::look::as_kept;
use super::place::Place;
use super::talk::Talk;

/// The longest target of a link that the system takes.
const MAX_LINK: u64 = 4096;

/// What the host wants of the tree.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// The rest as it is.
    pub(super) keeps: bool,
    pub(super) wanted: Vec<Entry>,
    pub(super) dropped: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) directory: PathBuf,
    /// The directory is the tree itself, and not numbered pieces of it.
    pub(super) whole: bool,
    pub(super) old: Kept,
    pub(super) wish: Wish,
    /// Of what is wanted: what is as it should be already, or has arrived.
    pub(super) stats: HashMap<u32, Stat>,
    pub(super) needed: Vec<u32>,
}

impl Stage {
    /// `old`: of the tree that is there.
    pub(super) fn new(place: &Place, old: Option<Kept>, wish: Wish) -> Result<Self> {
        check(&wish)?;
        let ours = old.is_some();
        let directory = if ours { place.state().join("stage") } else { place.nursery.clone() };
        if ours && place.at(b".git/index.lock").exists() {
            let message = format!("git is at work in {} just now", place.root.display());
            return Err(Fault::Refused { code: Refusal::Busy, message });
        }
        // Of an attempt that was cut short.
        remove_tree(&directory)?;
        fs::create_dir(&directory).context(|| format!("make {}", directory.display()))?;
        let mut stage = Self {
            directory,
            whole: !ours,
            old: old.unwrap_or_default(),
            wish,
            stats: HashMap::new(),
            needed: vec![],
        };
        stage.compare(place)?;
        Ok(stage)
    }

    fn compare(&mut self, place: &Place) -> Result<()> {
        let wanted = self.wish.wanted.iter().map(|entry| entry.path.as_slice());
        let wanted: HashSet<&[u8]> = wanted.collect();
        let old = self.old.entries.iter().map(|item| (item.entry.path.as_slice(), item));
        let old: HashMap<&[u8], &Item> = old.filter(|(path, _)| wanted.contains(path)).collect();
        for (index, entry) in (0..).zip(&self.wish.wanted) {
            if entry.kind == Kind::Gone {
                continue;
            }
            let here = place.at(&entry.path);
            let is_object = entry.path.starts_with(b".git/objects/");
            let stat = match old.get(entry.path.as_slice()) {
                // Named by their content, and the guest may have made the same.
                _ if is_object && !self.whole => {
                    let meta = here.symlink_metadata().ok();
                    meta.filter(|meta| meta.len() == entry.size).map(|meta| Stat::of(&meta))
                }
                Some(item) if is_same(&item.entry, entry) => as_kept(&self.old, item, &here)?,
                _ => None,
            };
            match stat {
                Some(stat) => drop(self.stats.insert(index, stat)),
                None => self.needed.push(index),
            }
        }
        Ok(())
    }

    /// Tells what is needed and takes it in.
    pub(super) fn receive(&mut self, talk: &mut Talk) -> Result<()> {
        for piece in pieces(self.needed.clone(), |_| 5) {
            talk.say(&Answer::Need(piece))?;
        }
        talk.say(&Answer::Done)?;
        talk.flush()?;
        let mut made = HashSet::new();
        let mut buffer = vec![0; MAX_DATA];
        for index in std::mem::take(&mut self.needed) {
            let Some(entry) = self.wish.wanted.get(index as usize) else { continue };
            let path = self.place_of(index, &entry.path);
            if self.whole {
                make_parents(&self.directory, &entry.path, &mut made)?;
            }
            let stat = take(talk, entry, &path, &mut buffer)?;
            self.stats.insert(index, stat);
            self.needed.push(index);
        }
        Ok(())
    }

    pub(super) fn place_of(&self, index: u32, path: &[u8]) -> PathBuf {
        match self.whole {
            true => self.directory.join(OsStr::from_bytes(path)),
            false => self.directory.join(index.to_string()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(remove_tree(&self.directory)); // After a commit it is not there.
    }
}

fn check(wish: &Wish) -> Result<()> {
    let Wish { wanted, dropped, .. } = wish;
    let paths = || wanted.iter().map(|entry| &entry.path);
    let ours = |path: &&Vec<u8>| path.starts_with(b".git/banger") || path.as_slice() == b".git";
    let bad = paths().chain(dropped).find(|path| !is_plain(path) || ours(path));
    if let Some(path) = bad {
        let shown = String::from_utf8_lossy(path);
        return Err(Fault::path(format!("{shown:?} cannot be a path of a workspace")));
    }
    let mut seen = HashSet::with_capacity(wanted.len());
    match paths().find(|path| !seen.insert(path.as_slice())) {
        Some(path) => {
            let shown = String::from_utf8_lossy(path);
            Err(Fault::path(format!("{shown:?} is there twice")))
        }
        None => Ok(()),
    }
}

fn is_same(a: &Entry, b: &Entry) -> bool {
    (a.kind, a.size, a.hash) == (b.kind, b.size, b.hash)
        && (a.kind == Kind::Link || a.mode & 0o777 == b.mode & 0o777)
}

/// One entry's content, into a place of its own.
fn take(talk: &mut Talk, entry: &Entry, path: &Path, buffer: &mut [u8]) -> Result<Stat> {
    let what = || format!("write {}", String::from_utf8_lossy(&entry.path));
    let mut left = entry.size;
    if entry.kind == Kind::Link {
        if left > MAX_LINK {
            return Err(Fault::path(format!("{}: a link of {left} bytes", what())));
        }
        let mut target = vec![];
        while left > 0 {
            let piece = next(talk, &mut left, buffer)?;
            target.extend_from_slice(piece);
        }
        symlink(OsStr::from_bytes(&target), path).context(what)?;
        let (now, then) = (TimeSpec::UTIME_OMIT, TimeSpec::from(since(entry.mtime_ns)));
        utimensat(AT_FDCWD, path, &now, &then, UtimensatFlags::NoFollowSymlink).context(what)?;
        return Ok(Stat::of(&path.symlink_metadata().context(what)?));
    }
    let mode = entry.mode & 0o777;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).context(what)?;
    // The mask, which is meant for directories, has taken these away.
    if mode & 0o022 != 0 {
        file.set_permissions(fs::Permissions::from_mode(mode)).context(what)?;
    }
    while left > 0 {
        let piece = next(talk, &mut left, buffer)?;
        file.write_all(piece).context(what)?;
    }
    set_mtime(&file, entry.mtime_ns).context(what)?;
    Ok(Stat::of(&file.metadata().context(what)?))
}

fn next<'a>(talk: &mut Talk, left: &mut u64, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let room = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    let length = talk.data(buffer.get_mut(..room).unwrap_or_default())?;
    *left -= length as u64;
    Ok(buffer.get(..length).unwrap_or_default())
}

fn set_mtime(file: &File, mtime_ns: i64) -> std::io::Result<()> {
    file.set_times(FileTimes::new().set_modified(since_epoch(mtime_ns)))
}

/// Before 1970 nobody edits.
fn since(ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

fn since_epoch(ns: i64) -> SystemTime {
    UNIX_EPOCH + since(ns)
}

/// The directories above a path, each looked at once.
fn make_parents(root: &Path, path: &[u8], made: &mut HashSet<Vec<u8>>) -> Result<()> {
    let Some(at) = path.iter().rposition(|byte| *byte == b'/') else { return Ok(()) };
    let parent = path.get(..at).unwrap_or_default();
    if made.contains(parent) {
        return Ok(());
    }
    let directory = root.join(OsStr::from_bytes(parent));
    fs::create_dir_all(&directory).context(|| format!("make {}", directory.display()))?;
    made.insert(parent.to_vec());
    Ok(())
}

pub(super) fn remove_tree(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
