//! Puts a file system together: entries in, one file out.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::Digest as _;

use super::blocks::{Blocks, Run};
use super::inode::{self, DirBlocks, Outside};
use super::layout::{
    BLOCK, BLOCK_LEN, DESCRIPTOR, FIRST_DATA, FIRST_INODE, Fields, Geometry, INODE, PER_GROUP,
    SUPERBLOCK_AT, UUID_AT, halves,
};
use super::tree::{Kind, Meta, Refusal, Special, Tree};
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
    tree: Tree,
    blocks: Blocks,
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
        if target.is_empty() || target.len() >= BLOCK || target.contains(&0) {
            return Err(refused(path, Refusal::LinkLength));
        }
        check(&meta).map_err(|why| refused(path, why))?;
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
        if let Special::Char { major, minor } | Special::Block { major, minor } = special
            && (major > 0xfff || minor > 0xf_ffff)
        {
            return Err(refused(path, Refusal::OutOfRange("device number")));
        }
        check(&meta).map_err(|why| refused(path, why))?;
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

    /// Writes directories, tables and superblock. The file is not synced.
    pub(in crate::host::image) fn finish(mut self) -> Result<Built, BuildError> {
        self.write_directories().map_err(BuildError::Tables)?;
        let (outside, inline) = self.write_outside()?;
        let inodes = inode::number(u32::try_from(self.tree.nodes.len()).unwrap_or(u32::MAX) - 1);
        let geometry = Geometry::fit(self.blocks.next(), inodes.max(FIRST_INODE))
            .ok_or(BuildError::TooLarge)?;
        self.write_tables(&geometry, inodes, &outside, &inline).map_err(BuildError::Tables)?;
        let header = self.header(&geometry, inodes);
        self.seal(&geometry, header).map_err(BuildError::Tables)
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
            let code = inode::type_code(&self.tree.node(*child).kind);
            blocks.push(inode::number(*child), code, name);
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
            for block in inode::extent_blocks(run) {
                out.extents.push(put(&block)?);
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

    fn write_tables(
        &mut self,
        geometry: &Geometry,
        inodes: u32,
        outside: &[Outside],
        inline: &[Inline],
    ) -> io::Result<()> {
        for group in 0..geometry.groups {
            let first = group * PER_GROUP;
            let used = |bit| bit >= geometry.blocks_in(group) || geometry.is_used(first + bit);
            self.blocks.append(&bitmap(used))?;
        }
        for group in 0..geometry.groups {
            let first = group * geometry.inodes_per_group + 1;
            let used = |bit| bit >= geometry.inodes_per_group || is_inode_used(first + bit, inodes);
            self.blocks.append(&bitmap(used))?;
        }
        let mut table = vec![0; BLOCK];
        let per_block = u32::try_from(BLOCK / INODE).unwrap_or(1);
        for first in (1..=geometry.groups * geometry.inodes_per_group).step_by(BLOCK / INODE) {
            table.fill(0);
            for number in first..first + per_block {
                let index = match number {
                    2 => 0,
                    FIRST_INODE.. if number <= inodes => (number + 1 - FIRST_INODE) as usize,
                    _ => continue,
                };
                let at = (number - first) as usize * INODE;
                let node = &self.tree.nodes[index];
                let bytes = inode::encode(node, &outside[index], inline[index].as_deref());
                table[at..at + INODE].copy_from_slice(&bytes);
            }
            self.blocks.append(&table)?;
        }
        self.blocks.skip_to(geometry.blocks)
    }

    /// Everything before [`FIRST_DATA`], with the UUID still zero.
    fn header(&self, geometry: &Geometry, inodes: u32) -> Vec<u8> {
        let mut header = vec![0; FIRST_DATA as usize * BLOCK];
        let (mut free_blocks, mut free_inodes) = (0, 0);
        let mut dirs = vec![0_u32; geometry.groups as usize];
        for (index, node) in self.tree.nodes.iter().enumerate() {
            if matches!(node.kind, Kind::Dir { .. }) {
                let number = inode::number(u32::try_from(index).unwrap_or(u32::MAX));
                dirs[((number - 1) / geometry.inodes_per_group) as usize] += 1;
            }
        }
        for group in 0..geometry.groups {
            let block = group * PER_GROUP;
            let blocks = (0..geometry.blocks_in(group)).filter(|b| !geometry.is_used(block + b));
            let blocks = u32::try_from(blocks.count()).unwrap_or(0);
            let first = group * geometry.inodes_per_group + 1;
            let used = (first..first + geometry.inodes_per_group)
                .filter(|number| is_inode_used(*number, inodes))
                .count();
            let inodes = geometry.inodes_per_group - u32::try_from(used).unwrap_or(0);
            free_blocks += blocks;
            free_inodes += inodes;
            Fields(&mut header[BLOCK + group as usize * DESCRIPTOR..])
                .u32(0x00, geometry.block_bitmap(group))
                .u32(0x04, geometry.inode_bitmap(group))
                .u32(0x08, geometry.inode_table(group))
                .u16(0x0c, halves(blocks).0)
                .u16(0x0e, halves(inodes).0)
                .u16(0x10, halves(dirs[group as usize]).0);
        }
        put_superblock(&mut header[SUPERBLOCK_AT..], geometry, free_blocks, free_inodes);
        header
    }

    fn seal(self, geometry: &Geometry, mut header: Vec<u8>) -> io::Result<Built> {
        let (file, mut hash) = self.blocks.finish()?;
        hash.update(&header);
        let digest = Digest(hash.finalize().into());
        let uuid = uuid_of(digest);
        header[UUID_AT..UUID_AT + 16].copy_from_slice(&uuid);
        let bytes = u64::from(geometry.blocks) * BLOCK_LEN;
        file.set_len(bytes)?;
        file.write_all_at(&header, 0)?;
        Ok(Built { digest, uuid, bytes })
    }
}

fn put_superblock(into: &mut [u8], geometry: &Geometry, free_blocks: u32, free_inodes: u32) {
    const EXT_ATTR: u32 = 0x8;
    const SPARSE_SUPER2: u32 = 0x200;
    const FILETYPE: u32 = 0x2;
    const EXTENTS: u32 = 0x40;
    const FLEX_BG: u32 = 0x200;
    const LARGE_FILE: u32 = 0x2;
    const HUGE_FILE: u32 = 0x8;
    const EXTRA_ISIZE: u32 = 0x40;
    Fields(into)
        .u32(0x00, geometry.groups * geometry.inodes_per_group)
        .u32(0x04, geometry.blocks)
        .u32(0x0c, free_blocks)
        .u32(0x10, free_inodes)
        .u32(0x18, 2) // blocks of 1 KiB << 2
        .u32(0x1c, 2)
        .u32(0x20, PER_GROUP)
        .u32(0x24, PER_GROUP)
        .u32(0x28, geometry.inodes_per_group)
        .u16(0x36, 0xffff) // no check after so many mounts
        .u16(0x38, 0xef53)
        .u16(0x3a, 1) // clean
        .u16(0x3c, 1) // on errors: go on
        .u32(0x4c, 1) // dynamic inode sizes
        .u32(0x54, FIRST_INODE)
        .u16(0x58, 256)
        .u32(0x5c, EXT_ATTR | SPARSE_SUPER2)
        .u32(0x60, FILETYPE | EXTENTS | FLEX_BG)
        .u32(0x64, LARGE_FILE | HUGE_FILE | EXTRA_ISIZE)
        .bytes(0x78, b"banger-image")
        .u32(0x100, 0xc) // user attributes and access control lists
        .u16(0x15c, 32)
        .u16(0x15e, 32)
        .u32(0x160, 1) // signed directory hashes, which there are none of
        .u8(0x174, 4);
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

fn check(meta: &Meta) -> Result<(), Refusal> {
    xattr::encode(&meta.xattrs).map(drop)
}

fn refused(path: &[u8], why: Refusal) -> BuildError {
    BuildError::Refused { entry: shown(path), why }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
