//! Puts a file system together: entries in, one file out.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::Digest as _;

use super::blocks::{Blocks, Run};
use super::header::{Count, Header};
use super::inode::{self, DirBlocks, Outside};
use super::journal;
use super::layout::{BLOCK, BLOCK_LEN, FIRST_INODE, Geometry, INODE, JOURNAL_INODE, PER_GROUP};
use super::tree::{Kind, Meta, Node, Refusal, Special, Tree};
use super::verify::uuid_of;
use super::xattr::{self, Encoded};
use crate::model::Digest;

#[derive(Debug, thiserror::Error)]
pub(in crate::host::image) enum BuildError {
    #[error("entry {entry:?}")]
    Refused {
        entry: String,
        #[source]
        why: Refusal,
    },
    /// Reading contents or writing the image; a source that ends too soon is `UnexpectedEof`.
    #[error("copy {entry:?}")]
    Copy {
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("write tables of the file system")]
    Tables(#[source] io::Error),
    #[error("image would be larger than 1 TiB")]
    TooLarge,
}

/// Attributes that fit their inode.
type Inline = Option<Vec<u8>>;

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host::image) struct Built {
    pub(in crate::host::image) digest: Digest,
    pub(in crate::host::image) uuid: [u8; 16],
    pub(in crate::host::image) bytes: u64,
}

#[derive(Debug)]
pub(in crate::host::image) struct Builder {
    pub(super) tree: Tree,
    pub(super) blocks: Blocks,
}

impl Builder {
    /// Writes to `file`, which is new and empty.
    pub(in crate::host::image) fn new(file: File) -> Self {
        Self { tree: Tree::new(), blocks: Blocks::new(file) }
    }

    pub(in crate::host::image) fn directory(
        &mut self,
        path: &[u8],
        meta: Meta,
    ) -> Result<(), BuildError> {
        let checked = check(&meta).and_then(|()| self.tree.directory(path, meta));
        checked.map_err(|why| refused(path, why))
    }

    /// Reads `len` bytes of contents.
    pub(in crate::host::image) fn file(
        &mut self,
        path: &[u8],
        meta: Meta,
        contents: &mut dyn Read,
        len: u64,
    ) -> Result<(), BuildError> {
        if len > inode::MAX_FILE {
            return Err(refused(path, Refusal::FileTooLarge));
        }
        check(&meta).map_err(|why| refused(path, why))?;
        let at = self.tree.vacancy(path).map_err(|why| refused(path, why))?;
        let copied = self.blocks.append_from(contents, len);
        let data = copied.map_err(|source| BuildError::Copy { entry: shown(path), source })?;
        self.tree.put(at, Kind::File { len, data }, meta);
        Ok(())
    }

    pub(in crate::host::image) fn symlink(
        &mut self,
        path: &[u8],
        meta: Meta,
        target: &[u8],
    ) -> Result<(), BuildError> {
        let checked = check_link(target).and_then(|()| check(&meta));
        checked.map_err(|why| refused(path, why))?;
        let at = self.tree.vacancy(path).map_err(|why| refused(path, why))?;
        let mut data = Run::NONE;
        if target.len() >= inode::FAST_LINK {
            let copied = self.blocks.append(target);
            data = copied.map_err(|source| BuildError::Copy { entry: shown(path), source })?;
        }
        let meta = Meta { mode: 0o777, ..meta };
        self.tree.put(at, Kind::Symlink { target: target.to_vec(), data }, meta);
        Ok(())
    }

    pub(in crate::host::image) fn hard_link(
        &mut self,
        path: &[u8],
        target: &[u8],
    ) -> Result<(), BuildError> {
        self.tree.hard_link(path, target).map_err(|why| refused(path, why))
    }

    pub(in crate::host::image) fn special(
        &mut self,
        path: &[u8],
        meta: Meta,
        special: Special,
    ) -> Result<(), BuildError> {
        let checked = check_special(special).and_then(|()| check(&meta));
        checked.map_err(|why| refused(path, why))?;
        let at = self.tree.vacancy(path).map_err(|why| refused(path, why))?;
        self.tree.put(at, Kind::Special(special), meta);
        Ok(())
    }

    /// Entries so far, the root included.
    pub(in crate::host::image) fn entries(&self) -> usize {
        self.tree.nodes.len()
    }

    /// Whether there is something of this name; symbolic links are not followed.
    pub(in crate::host::image) fn has(&self, path: &str) -> bool {
        self.tree.find(path).is_some()
    }

    /// Names in the root directory.
    pub(in crate::host::image) fn top(&self) -> Vec<String> {
        match &self.tree.nodes[0].kind {
            Kind::Dir { children, .. } => {
                children.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
            }
            _ => vec![],
        }
    }

    /// Whether some file can be executed.
    pub(in crate::host::image) fn has_executable(&self) -> bool {
        self.tree.nodes.iter().any(|node| {
            node.meta.mode & 0o111 != 0 && matches!(node.kind, Kind::File { len, .. } if len > 0)
        })
    }

    /// Writes journal, directories, tables and superblock. The file is not synced.
    pub(in crate::host::image) fn finish(mut self) -> Result<Built, BuildError> {
        let journal = self.write_journal().map_err(BuildError::Tables)?;
        self.write_directories().map_err(BuildError::Tables)?;
        let (outside, inline) = self.write_outside()?;
        let inodes = inode::number(u32::try_from(self.tree.nodes.len()).unwrap_or(u32::MAX) - 1);
        let geometry = Geometry::fit(self.blocks.next(), inodes.max(FIRST_INODE))
            .ok_or(BuildError::TooLarge)?;
        let inodes = Inodes { last: inodes, journal, outside, inline };
        self.write_tables(&geometry, &inodes).map_err(BuildError::Tables)?;
        let header =
            Header::new(&geometry, &self.count(&geometry, &inodes), &inodes.journal_copy());
        self.seal(&geometry, header).map_err(BuildError::Tables)
    }

    fn write_journal(&mut self) -> io::Result<[u8; INODE]> {
        let len = u64::from(journal::BLOCKS) * BLOCK_LEN;
        let superblock = journal::superblock();
        let mut contents = (&superblock[..]).chain(io::repeat(0));
        let data = self.blocks.append_from(&mut contents, len)?;
        let meta = Meta { mode: 0o600, ..Meta::default() };
        let node = Node { kind: Kind::File { len, data }, meta, links: 1 };
        Ok(inode::encode(&node, &Outside::default(), None))
    }

    fn write_directories(&mut self) -> io::Result<()> {
        for index in 0..self.tree.nodes.len() {
            let bytes = self.directory_blocks(index);
            if bytes.is_empty() {
                continue;
            }
            let run = self.blocks.append(&bytes)?;
            if let Kind::Dir { data, .. } = &mut self.tree.nodes[index].kind {
                *data = run;
            }
        }
        Ok(())
    }

    /// Empty for what is no directory.
    fn directory_blocks(&self, index: usize) -> Vec<u8> {
        let Kind::Dir { children, parent, .. } = &self.tree.nodes[index].kind else {
            return vec![];
        };
        let mut blocks = DirBlocks::default();
        blocks.push(inode::number(u32::try_from(index).unwrap_or(u32::MAX)), 2, b".");
        blocks.push(inode::number(*parent), 2, b"..");
        for (name, child) in children {
            let code = inode::type_code(&self.tree.node(child.node).kind);
            blocks.push(inode::number(child.node), code, name);
        }
        blocks.finish()
    }

    /// Extent and attribute blocks, and the attributes that need none.
    fn write_outside(&mut self) -> Result<(Vec<Outside>, Vec<Inline>), BuildError> {
        let count = self.tree.nodes.len();
        let (mut outside, mut inline) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for node in &self.tree.nodes {
            let run = match &node.kind {
                Kind::File { data, .. } | Kind::Dir { data, .. } => *data,
                _ => Run::NONE,
            };
            let mut put = |bytes: &[u8]| {
                self.blocks.append(bytes).map(|run| run.start).map_err(BuildError::Tables)
            };
            let mut out = Outside::default();
            for (first, block) in inode::extent_blocks(run) {
                out.extents.push((first, put(&block)?));
            }
            // Checked when the entry came.
            inline.push(match xattr::encode(&node.meta.xattrs).unwrap_or(Encoded::None) {
                Encoded::None => None,
                Encoded::InInode(bytes) => Some(bytes),
                Encoded::InBlock(block) => {
                    out.xattrs = Some(put(&block)?);
                    None
                }
            });
            outside.push(out);
        }
        Ok((outside, inline))
    }

    fn write_tables(&mut self, geometry: &Geometry, inodes: &Inodes) -> io::Result<()> {
        for (group, at) in (0..geometry.groups).zip(&geometry.block_bitmaps) {
            let first = group * PER_GROUP;
            let used = |bit| bit >= geometry.blocks_in(group) || geometry.is_used(first + bit);
            self.blocks.skip_to(*at)?;
            self.blocks.append(&bitmap(used))?;
        }
        for (group, at) in (0..geometry.groups).zip(&geometry.inode_bitmaps) {
            let first = group * geometry.inodes_per_group + 1;
            let used =
                |bit| bit >= geometry.inodes_per_group || is_inode_used(first + bit, inodes.last);
            self.blocks.skip_to(*at)?;
            self.blocks.append(&bitmap(used))?;
        }
        let mut table = vec![0; geometry.inodes_per_group as usize * INODE];
        for (group, at) in (0..geometry.groups).zip(&geometry.inode_tables) {
            let first = group * geometry.inodes_per_group + 1;
            table.fill(0);
            for (number, slot) in (first..).zip(table.chunks_mut(INODE)) {
                if let Some(bytes) = inodes.encode(&self.tree, number) {
                    slot.copy_from_slice(&bytes);
                }
            }
            self.blocks.skip_to(*at)?;
            self.blocks.append(&table)?;
        }
        self.blocks.skip_to(geometry.blocks)
    }

    fn count(&self, geometry: &Geometry, inodes: &Inodes) -> Vec<Count> {
        let mut counts = vec![Count::default(); geometry.groups as usize];
        for (index, node) in self.tree.nodes.iter().enumerate() {
            if matches!(node.kind, Kind::Dir { .. }) {
                let number = inode::number(u32::try_from(index).unwrap_or(u32::MAX));
                counts[((number - 1) / geometry.inodes_per_group) as usize].directories += 1;
            }
        }
        for (group, count) in (0..geometry.groups).zip(&mut counts) {
            let first = group * PER_GROUP;
            let free = |block: &u32| !geometry.is_used(first + block);
            let blocks = (0..geometry.blocks_in(group)).filter(free).count();
            count.blocks = u32::try_from(blocks).unwrap_or(0);
            let first = group * geometry.inodes_per_group + 1;
            let all = first..first + geometry.inodes_per_group;
            let free = all.filter(|number| !is_inode_used(*number, inodes.last)).count();
            count.inodes = u32::try_from(free).unwrap_or(0);
        }
        counts
    }

    fn seal(self, geometry: &Geometry, mut header: Header) -> io::Result<Built> {
        let (file, mut hash) = self.blocks.finish()?;
        header.parts().for_each(|part| hash.update(part));
        let digest = Digest(hash.finalize().into());
        let uuid = uuid_of(digest);
        header.sign(uuid);
        let bytes = u64::from(geometry.blocks) * BLOCK_LEN;
        file.set_len(bytes)?;
        for (at, block) in header.blocks() {
            file.write_all_at(&block, u64::from(at) * BLOCK_LEN)?;
        }
        Ok(Built { digest, uuid, bytes })
    }
}

/// What goes into the inode tables beside the tree.
struct Inodes {
    last: u32,
    journal: [u8; INODE],
    outside: Vec<Outside>,
    inline: Vec<Inline>,
}

impl Inodes {
    /// `None`: nothing has this number.
    fn encode(&self, tree: &Tree, number: u32) -> Option<[u8; INODE]> {
        let index = match number {
            2 => 0,
            JOURNAL_INODE => return Some(self.journal),
            FIRST_INODE.. if number <= self.last => (number + 1 - FIRST_INODE) as usize,
            _ => return None,
        };
        let inline = self.inline[index].as_deref();
        Some(inode::encode(&tree.nodes[index], &self.outside[index], inline))
    }

    /// Its extents and its size, as the superblock repeats them.
    fn journal_copy(&self) -> Vec<u8> {
        let mut copy = self.journal[0x28..0x64].to_vec();
        copy.extend(&self.journal[0x6c..0x70]);
        copy.extend(&self.journal[0x04..0x08]);
        copy
    }
}

fn is_inode_used(number: u32, last: u32) -> bool {
    number < FIRST_INODE || number <= last
}

fn bitmap(used: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    for bit in (0..PER_GROUP).filter(|bit| used(*bit)) {
        bytes[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    bytes
}

pub(super) fn check(meta: &Meta) -> Result<(), Refusal> {
    xattr::encode(&meta.xattrs).map(drop)
}

pub(super) fn check_link(target: &[u8]) -> Result<(), Refusal> {
    if target.is_empty() || target.len() >= BLOCK || target.contains(&0) {
        return Err(Refusal::LinkLength);
    }
    Ok(())
}

pub(super) fn check_special(special: Special) -> Result<(), Refusal> {
    if let Special::Char { major, minor } | Special::Block { major, minor } = special
        && (major > 0xfff || minor > 0xf_ffff)
    {
        return Err(Refusal::OutOfRange("device number"));
    }
    Ok(())
}

pub(in crate::host::image) fn refused(path: &[u8], why: Refusal) -> BuildError {
    BuildError::Refused { entry: shown(path), why }
}

/// Names need not be text.
pub(in crate::host::image) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
