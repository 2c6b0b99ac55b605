//! Inodes, extents and directory blocks as bytes. Pure.

use super::blocks::Run;
use super::layout::{
    BLOCK, BLOCK_LEN, FIRST_INODE, Fields, INODE, data_at, group_end, halves, words,
};
use super::tree::{Kind, Meta, Node, Special};

const EXTENTS_FLAG: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// What fits in the inode, and in a block.
const EXTENTS_IN_INODE: usize = 4;
const EXTENTS_IN_BLOCK: usize = (BLOCK - 12) / 12;
/// Symbolic links shorter than this are kept in the inode.
pub(super) const FAST_LINK: usize = 60;
/// No extent leaves its group, so this many groups have extents to spare.
pub(super) const MAX_FILE: u64 = 160 << 30;

/// The number of the inode of the node at this place in the tree.
pub(super) fn number(index: u32) -> u32 {
    if index == 0 { 2 } else { FIRST_INODE - 1 + index }
}

/// Blocks that hold what the inode cannot: extents, attributes.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// The first block of the file that each of them leads to, and where it is.
    pub(super) extents: Vec<(u32, u32)>,
    pub(super) xattrs: Option<u32>,
}

/// The extent blocks that this run needs, each with the first block of the file that it is about;
/// mostly none.
pub(super) fn extent_blocks(run: Run) -> Vec<(u32, Vec<u8>)> {
    let extents = extents(run);
    if extents.len() <= EXTENTS_IN_INODE {
        return vec![];
    }
    let block = |part: &[(u32, u32, u32)]| {
        let mut block = vec![0; BLOCK];
        put_extents(&mut block, part, EXTENTS_IN_BLOCK);
        (part[0].0, block)
    };
    extents.chunks(EXTENTS_IN_BLOCK).map(block).collect()
}

/// First block in the file, length, first block on disk. An extent ends with its group at the
/// latest, which is also as long as one may be.
fn extents(run: Run) -> Vec<(u32, u32, u32)> {
    let (mut extents, mut at, mut start) = (vec![], 0, run.start);
    while at < run.blocks {
        let len = (group_end(start) - start).min(run.blocks - at);
        extents.push((at, len, start));
        at += len;
        start = data_at(start + len);
    }
    extents
}

fn put_header(into: &mut [u8], entries: usize, room: usize, depth: u16) {
    let small = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    Fields(into).u16(0, EXTENT_MAGIC).u16(2, small(entries)).u16(4, small(room)).u16(6, depth);
}

fn put_extents(into: &mut [u8], extents: &[(u32, u32, u32)], room: usize) {
    put_header(into, extents.len(), room, 0);
    for (index, (at, len, start)) in extents.iter().enumerate() {
        let slot = 12 + 12 * index;
        // 32768 is the length 32768; only what is above marks an unwritten extent.
        Fields(into).u32(slot, *at).u16(slot + 4, halves(*len).0).u32(slot + 8, *start);
    }
}

fn put_index(into: &mut [u8], leaves: &[(u32, u32)]) {
    put_header(into, leaves.len(), EXTENTS_IN_INODE, 1);
    for (index, (first, leaf)) in leaves.iter().enumerate() {
        Fields(into).u32(12 + 12 * index, *first).u32(16 + 12 * index, *leaf);
    }
}

/// One inode. `inline` are its attributes, if they fit.
pub(super) fn encode(node: &Node, outside: &Outside, inline: Option<&[u8]>) -> [u8; INODE] {
    let mut bytes = [0; INODE];
    let (kind, len, run) = match &node.kind {
        Kind::File { len, data } => (0o100_000, *len, Some(*data)),
        Kind::Dir { data, .. } => (0o040_000, u64::from(data.blocks) * BLOCK_LEN, Some(*data)),
        Kind::Symlink { target, data } => {
            (0o120_000, target.len() as u64, (target.len() >= FAST_LINK).then_some(*data))
        }
        Kind::Special(Special::Char { .. }) => (0o020_000, 0, None),
        Kind::Special(Special::Block { .. }) => (0o060_000, 0, None),
        Kind::Special(Special::Fifo) => (0o010_000, 0, None),
        Kind::Special(Special::Socket) => (0o140_000, 0, None),
    };
    match &node.kind {
        Kind::Symlink { target, .. } if run.is_none() => {
            Fields(&mut bytes).bytes(0x28, target);
        }
        Kind::Special(Special::Char { major, minor } | Special::Block { major, minor }) => {
            put_device(&mut bytes[0x28..], *major, *minor);
        }
        _ => {}
    }
    let mut blocks = u64::from(outside.xattrs.is_some()) + outside.extents.len() as u64;
    let mut flags = 0;
    if let Some(run) = run {
        blocks += u64::from(run.blocks);
        flags = EXTENTS_FLAG;
        if outside.extents.is_empty() {
            put_extents(&mut bytes[0x28..0x64], &extents(run), EXTENTS_IN_INODE);
        } else {
            put_index(&mut bytes[0x28..0x64], &outside.extents);
        }
    }
    let links = match &node.kind {
        Kind::Dir { subdirs, .. } => 2 + subdirs,
        _ => node.links,
    };
    let ((uid, uid_high), (gid, gid_high)) = (halves(node.meta.uid), halves(node.meta.gid));
    let ((len, len_high), (sectors, sectors_high)) = (words(len), words(blocks * 8));
    Fields(&mut bytes)
        .u16(0x00, kind | node.meta.mode & 0o7777)
        .u16(0x02, uid)
        .u32(0x04, len)
        .u16(0x18, gid)
        .u16(0x1a, halves(links).0)
        .u32(0x1c, sectors)
        .u32(0x20, flags)
        .u32(0x68, outside.xattrs.unwrap_or(0))
        .u32(0x6c, len_high)
        .u16(0x74, halves(sectors_high).0)
        .u16(0x78, uid_high)
        .u16(0x7a, gid_high)
        .u16(0x80, 32);
    put_times(&mut bytes, &node.meta);
    if let Some(inline) = inline {
        Fields(&mut bytes).bytes(0xa0, inline);
    }
    bytes
}

/// All four times are the modification time: no other is known, and "now" would differ each time.
fn put_times(bytes: &mut [u8], meta: &Meta) {
    let second = meta.mtime.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
    // Two bits more than 32, counted from 1901, and above them the nanoseconds.
    #[allow(clippy::cast_sign_loss, reason = "shifted into the positive before")]
    let epoch = words(((second + (1 << 31)) as u64) >> 32).0;
    #[allow(clippy::cast_sign_loss, reason = "the low bits of two's complement are wanted")]
    let low = words(second as u64).0;
    let extra = epoch | (meta.mtime_nsec.min(999_999_999) << 2);
    for (time, more) in [(0x08, 0x8c), (0x0c, 0x84), (0x10, 0x88), (0x90, 0x94)] {
        Fields(bytes).u32(time, low).u32(more, extra);
    }
}

fn put_device(into: &mut [u8], major: u32, minor: u32) {
    if major < 256 && minor < 256 {
        Fields(into).u32(0, (major << 8) | minor);
    } else {
        Fields(into).u32(4, (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12));
    }
}

/// The kind of an entry, as directories note it.
pub(super) fn type_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Dir { .. } => 2,
        Kind::Special(Special::Char { .. }) => 3,
        Kind::Special(Special::Block { .. }) => 4,
        Kind::Special(Special::Fifo) => 5,
        Kind::Special(Special::Socket) => 6,
        Kind::Symlink { .. } => 7,
    }
}

/// Directory blocks: each entry's length leads to the next, the last one's to the block's end.
#[derive(Debug, Default)]
pub(super) struct DirBlocks {
    bytes: Vec<u8>,
    /// Where the last entry starts, and the room after it in its block.
    last: usize,
    free: usize,
}

impl DirBlocks {
    pub(super) fn push(&mut self, inode: u32, code: u8, name: &[u8]) {
        let need = (8 + name.len()).next_multiple_of(4);
        if need > self.free {
            self.bytes.resize(self.bytes.len() + BLOCK, 0);
            self.last = self.bytes.len() - BLOCK;
            self.free = BLOCK;
        } else {
            let end = self.bytes.len() - self.free;
            let len = end - self.last;
            self.set_len(len);
            self.last = end;
        }
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        Fields(&mut self.bytes[self.last..])
            .u32(0, inode)
            .u8(6, name_len)
            .u8(7, code)
            .bytes(8, name);
        let to_end = self.free;
        self.set_len(to_end);
        self.free -= need;
    }

    fn set_len(&mut self, len: usize) {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        Fields(&mut self.bytes[self.last..]).u16(4, len);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::PER_GROUP;
    use super::*;

    #[test]
    fn long_runs_get_extent_blocks() {
        assert!(extent_blocks(Run { start: 100, blocks: 3 * PER_GROUP }).is_empty());
        let blocks = extent_blocks(Run { start: 100, blocks: 4 * PER_GROUP });
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].1[..4], [0x0a, 0xf3, 5, 0]);
        let two = extent_blocks(Run { start: 2, blocks: 341 * PER_GROUP });
        assert_eq!(two.len(), 2);
        let largest = Run { start: 100, blocks: u32::try_from(MAX_FILE / BLOCK_LEN).unwrap() };
        assert!(extent_blocks(largest).len() <= EXTENTS_IN_INODE);
    }

    #[test]
    fn extents_go_around_the_heads_of_groups() {
        let run = Run { start: PER_GROUP - 1, blocks: PER_GROUP + 10 };
        // Group 1 begins with two blocks of its own, group 2 with none.
        let expected =
            [(0, 1, PER_GROUP - 1), (1, PER_GROUP - 2, PER_GROUP + 2), (32767, 11, 2 * PER_GROUP)];
        assert_eq!(extents(run), expected);
    }

    #[test]
    fn directory_entries_fill_their_blocks() {
        let mut dir = DirBlocks::default();
        for n in 0..200_u32 {
            dir.push(11 + n, 1, format!("a-rather-long-name-of-a-file-{n:04}").as_bytes());
        }
        let bytes = dir.finish();
        assert_eq!(bytes.len() % BLOCK, 0);
        let (mut at, mut seen) = (0, 0);
        while at < bytes.len() {
            let len = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
            assert!(len >= 12 && at / BLOCK == (at + len - 1) / BLOCK);
            at += len;
            seen += 1;
        }
        assert_eq!(seen, 200);
    }
}
