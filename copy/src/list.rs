//! What there is to send: files and trees, listed parents first.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::entry::{Entry, Kind};
use crate::error::{At, CopyError};

/// A file or tree with a place of its own below the receiver's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub path: PathBuf,
    /// Of one part or more; directories on the way there are made if they are missing.
    pub name: PathBuf,
    /// Of a file; a tree keeps those in it.
    pub mode: u32,
}

#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) entries: Vec<Entry>,
    /// Where entries are that were named.
    tops: HashMap<u32, PathBuf>,
    /// Files that have several names, by device and inode.
    linked: HashMap<(u64, u64), u32>,
    pub(crate) total: u64,
    /// What cannot be copied: devices, pipes, sockets.
    pub(crate) skipped: Vec<PathBuf>,
}

impl List {
    /// A link that is named is followed, one that is found below is not. Of `dir/.` only what is in it.
    pub(crate) fn of(paths: &[PathBuf]) -> Result<Self, CopyError> {
        let mut list = Self::default();
        for path in paths {
            if path.as_os_str().as_bytes().ends_with(b"/.") {
                for name in names(path)? {
                    list.add(&path.join(&name), &name, None, false)?;
                }
                continue;
            }
            let real;
            let name = match path.file_name() {
                Some(name) => name,
                None => {
                    real = fs::canonicalize(path).at("read", path)?;
                    real.file_name().ok_or_else(|| {
                        CopyError::refused(path, "it has no name; name what is in it with /.")
                    })?
                }
            };
            list.add(path, name, None, true)?;
        }
        Ok(list)
    }

    pub(crate) fn of_items(items: &[Item]) -> Result<Self, CopyError> {
        let mut list = Self::default();
        let mut ways: HashMap<&Path, u32> = HashMap::new();
        for item in items {
            let name = item.name.file_name();
            let name = name.ok_or_else(|| CopyError::refused(&item.name, "is no name"))?;
            let mut parent = None;
            let above = item.name.ancestors().skip(1).filter(|way| !way.as_os_str().is_empty());
            for way in above.collect::<Vec<_>>().into_iter().rev() {
                parent = Some(match ways.get(way) {
                    Some(known) => *known,
                    None => {
                        let index = list.next_index(way)?;
                        let name = way.file_name().unwrap_or_default().as_bytes().to_vec();
                        let kind = Kind::Way;
                        list.entries.push(Entry { parent, name, mode: 0, modified: (0, 0), kind });
                        ways.insert(way, index);
                        index
                    }
                });
            }
            let index = list.entries.len();
            list.add(&item.path, name, parent, true)?;
            if let Some(entry) = list.entries.get_mut(index)
                && matches!(entry.kind, Kind::File { .. })
            {
                entry.mode = item.mode;
            }
        }
        Ok(list)
    }

    fn next_index(&self, path: &Path) -> Result<u32, CopyError> {
        u32::try_from(self.entries.len())
            .map_err(|_| CopyError::refused(path, "more files than can be counted"))
    }

    fn add(
        &mut self,
        path: &Path,
        name: &OsStr,
        parent: Option<u32>,
        follow: bool,
    ) -> Result<(), CopyError> {
        let meta = match follow.then(|| fs::metadata(path)) {
            Some(Ok(meta)) => meta,
            _ => fs::symlink_metadata(path).at("read", path)?,
        };
        let index = self.next_index(path)?;
        let Some(kind) = self.kind(path, &meta, index)? else {
            self.skipped.push(path.to_owned());
            return Ok(());
        };
        let nanos = u32::try_from(meta.mtime_nsec()).unwrap_or(0);
        self.entries.push(Entry {
            parent,
            name: name.as_bytes().to_vec(),
            mode: meta.mode() & 0o7777,
            modified: (meta.mtime(), nanos),
            kind,
        });
        if follow || parent.is_none() {
            self.tops.insert(index, path.to_owned());
        }
        if meta.is_dir() {
            for name in names(path)? {
                self.add(&path.join(&name), &name, Some(index), false)?;
            }
        }
        Ok(())
    }

    fn kind(
        &mut self,
        path: &Path,
        meta: &Metadata,
        index: u32,
    ) -> Result<Option<Kind>, CopyError> {
        let kind = meta.file_type();
        Ok(if kind.is_dir() {
            Some(Kind::Dir)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).at("read", path)?;
            Some(Kind::Symlink { target: target.as_os_str().as_bytes().to_vec() })
        } else if kind.is_file() {
            if meta.nlink() > 1 {
                let first = *self.linked.entry((meta.dev(), meta.ino())).or_insert(index);
                if first != index {
                    return Ok(Some(Kind::HardLink { to: first }));
                }
            }
            self.total += meta.len();
            Some(Kind::File { size: Some(meta.len()) })
        } else {
            None
        })
    }

    pub(crate) fn path(&self, index: u32) -> PathBuf {
        let mut names = vec![];
        let mut at = index;
        loop {
            if let Some(top) = self.tops.get(&at) {
                let mut path = top.clone();
                path.extend(names.iter().rev());
                return path;
            }
            let Some(entry) = self.entries.get(at as usize) else { return PathBuf::new() };
            names.push(Path::new(OsStr::from_bytes(&entry.name)));
            let Some(parent) = entry.parent else { return PathBuf::new() };
            at = parent;
        }
    }
}

/// In an order of their own, so that two runs are alike.
fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>, CopyError> {
    let read = fs::read_dir(dir).at("read", dir)?;
    let names: Result<Vec<_>, _> = read.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.at("read", dir)?;
    names.sort();
    Ok(names)
}
