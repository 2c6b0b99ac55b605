//! Directories, from one of them down.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use super::extents::Contents;
use super::volume::{Inode, ROOT, Volume};
use super::{ReadError, u16_at, u32_at};
use crate::host::image::ext4::builder::shown;
use crate::host::image::ext4::tree::{Meta, Special};

/// As deep as an image may be.
const MAX_DEPTH: usize = 1024;
/// Of a directory's list of names.
const MAX_LIST: u64 = 256 << 20;

/// Something with a name.
#[derive(Debug)]
pub(in crate::host::image) struct Found {
    /// From where the walk began; empty there itself.
    pub(in crate::host::image) path: Vec<u8>,
    pub(in crate::host::image) meta: Meta,
    pub(in crate::host::image) content: Content,
    /// The same for all names of one file, and whether there are several.
    pub(in crate::host::image) file: u32,
    pub(in crate::host::image) is_linked: bool,
}

#[derive(Debug)]
pub(in crate::host::image) enum Content {
    File { len: u64, contents: Contents },
    Dir,
    Symlink(Vec<u8>),
    Special(Special),
}

impl Volume {
    /// Visits the directory and all below it, a directory before what it holds, in the order of names.
    /// False keeps out what a directory holds. Errors of `visit` end the walk.
    pub(in crate::host::image) fn walk<E: From<ReadError>>(
        &self,
        from: &[&[u8]],
        visit: &mut dyn FnMut(Found) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut start = self.inode(ROOT)?;
        for name in from {
            let names = self.names(&start, b"")?;
            let number = *names.get(*name).ok_or(ReadError::Damaged("root directory"))?;
            start = self.inode(number)?;
        }
        // Directories have one name; a second one is a loop, or what leads into one.
        let mut seen = HashSet::from([start.number]);
        if !visit(self.found(vec![], &start)?)? {
            return Ok(());
        }
        let mut dirs = vec![(vec![], self.names(&start, b"")?.into_iter())];
        while let Some((dir, names)) = dirs.last_mut() {
            let Some((name, number)) = names.next() else {
                dirs.pop();
                continue;
            };
            let mut path = dir.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(name);
            let at = |error| match error {
                ReadError::Damaged(what) => ReadError::DamagedAt { entry: shown(&path), what },
                other => other,
            };
            let inode = self.inode(number).map_err(at)?;
            let is_dir = is_dir(&inode);
            let goes_in = visit(self.found(path.clone(), &inode).map_err(at)?)?;
            if is_dir && goes_in {
                if !seen.insert(number) || dirs.len() >= MAX_DEPTH {
                    return Err(at(ReadError::Damaged("place among directories")).into());
                }
                let inner = self.names(&inode, &path)?.into_iter();
                dirs.push((path, inner));
            }
        }
        Ok(())
    }

    fn found(&self, path: Vec<u8>, inode: &Inode) -> Result<Found, ReadError> {
        let content = self.content(inode)?;
        let is_linked = inode.links > 1 && !matches!(content, Content::Dir);
        Ok(Found { path, meta: inode.meta.clone(), content, file: inode.number, is_linked })
    }

    fn content(&self, inode: &Inode) -> Result<Content, ReadError> {
        let word = |at| u32_at(&inode.data, at).unwrap_or(0);
        let device = || match (word(0), word(4)) {
            (0, new) => ((new & 0xf_ff00) >> 8, new & 0xff | new >> 12 & 0xf_ff00),
            (old, _) => (old >> 8 & 0xff, old & 0xff),
        };
        Ok(match inode.mode & 0o170_000 {
            0o100_000 => Content::File { len: inode.size, contents: self.contents(inode)? },
            0o040_000 => Content::Dir,
            0o120_000 => Content::Symlink(self.link(inode)?),
            0o020_000 => {
                let (major, minor) = device();
                Content::Special(Special::Char { major, minor })
            }
            0o060_000 => {
                let (major, minor) = device();
                Content::Special(Special::Block { major, minor })
            }
            0o010_000 => Content::Special(Special::Fifo),
            0o140_000 => Content::Special(Special::Socket),
            _ => return Err(ReadError::Damaged("kind")),
        })
    }

    fn link(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        let damaged = || ReadError::Damaged("symbolic link");
        let len = usize::try_from(inode.size).map_err(|_| damaged())?;
        if !inode.has_extents {
            return Ok(inode.data.get(..len).ok_or_else(damaged)?.to_vec());
        }
        if inode.size > self.block {
            return Err(damaged());
        }
        let mut target = vec![];
        self.contents(inode)?.read_to_end(&mut target)?;
        Ok(target)
    }

    fn names(&self, dir: &Inode, path: &[u8]) -> Result<BTreeMap<Vec<u8>, u32>, ReadError> {
        let entry = || shown(path);
        let damaged = || ReadError::DamagedAt { entry: entry(), what: "list of names" };
        let whole = dir.size.is_multiple_of(self.block) && dir.size / self.block <= self.blocks;
        if !is_dir(dir) || dir.size > MAX_LIST || !whole {
            return Err(damaged());
        }
        let mut contents = self.contents(dir)?;
        let mut block = vec![0; usize::try_from(self.block).unwrap_or(0)];
        let mut names = BTreeMap::new();
        for _ in 0..dir.size / self.block {
            contents.read_exact(&mut block)?;
            let mut rest = block.as_slice();
            while !rest.is_empty() {
                let number = u32_at(rest, 0).ok_or_else(damaged)?;
                // The longest of the largest block does not fit its field.
                let length = match u16_at(rest, 4).ok_or_else(damaged)? {
                    0 | u16::MAX => block.len(),
                    length => usize::from(length),
                };
                let (this, more) = rest.split_at_checked(length.max(8)).ok_or_else(damaged)?;
                rest = more;
                let name = this.get(8..8 + usize::from(this[6])).ok_or_else(damaged)?;
                // What has no number is free, the root of an index, or a checksum.
                if number == 0 || name == b"." || name == b".." {
                    continue;
                }
                if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                    return Err(damaged());
                }
                if names.insert(name.to_vec(), number).is_some() {
                    return Err(damaged());
                }
            }
        }
        Ok(names)
    }
}

fn is_dir(inode: &Inode) -> bool {
    inode.mode & 0o170_000 == 0o040_000
}
