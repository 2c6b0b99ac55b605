//! Numbers of the on-disk format, and how blocks are dealt out. Pure.
//!
//! Some groups begin with blocks that are no contents' (`heads`): a copy of the superblock, and the
//! descriptors of their metagroup (`meta_bg`). Where they are depends on the group's number alone,
//! so contents can be written before anybody knows how many groups there will be, and a kernel
//! that makes the file system larger later finds every copy where it looks for it.

use std::ops::Range;

pub(super) const BLOCK: usize = 4096;
pub(super) const BLOCK_LEN: u64 = BLOCK as u64;
pub(super) const INODE: usize = 256;
pub(super) const INODES_PER_BLOCK: u32 = 16;
/// Blocks, and at most inodes, of one group: the bits of one block.
pub(super) const PER_GROUP: u32 = 32768;
pub(super) const DESCRIPTOR: usize = 32;
/// Groups whose descriptors fill one block: a metagroup.
pub(super) const PER_METAGROUP: u32 = 128;
/// 1 TiB.
pub(super) const MAX_GROUPS: u32 = 8192;
/// The first block that may hold contents.
pub(super) const FIRST_DATA: u32 = 2;
/// Inodes 1 to 10 are reserved; number 2 is the root, 8 the journal.
pub(super) const FIRST_INODE: u32 = 11;
pub(super) const JOURNAL_INODE: u32 = 8;
/// What mke2fs gives a group by default. A clone of the image grows by groups of the same kind,
/// and those must have inodes for what a guest will put there.
const LEAST_INODES: u32 = 8192;

pub(super) const SUPERBLOCK_AT: usize = 1024;
pub(super) const UUID_AT: usize = SUPERBLOCK_AT + 0x68;
/// Of a descriptor's checksum, which depends on the UUID.
pub(super) const CHECKSUM_AT: usize = 0x1e;

/// Whether this group begins with a copy of the superblock (`sparse_super`).
pub(super) fn has_superblock(group: u32) -> bool {
    let power = |base: u32| {
        let mut at = base;
        while at < group {
            at = at.saturating_mul(base);
        }
        at == group
    };
    group <= 1 || power(3) || power(5) || power(7)
}

/// Whether it begins with the descriptors of its metagroup: the first, the second and the last do.
pub(super) fn has_descriptors(group: u32) -> bool {
    matches!(group % PER_METAGROUP, 0 | 1 | 127)
}

/// How many blocks at the beginning of this group are not contents'.
pub(super) fn heads(group: u32) -> u32 {
    u32::from(has_superblock(group)) + u32::from(has_descriptors(group))
}

/// This block, or the first after it that may hold contents.
pub(super) fn data_at(block: u32) -> u32 {
    let start = block / PER_GROUP * PER_GROUP;
    block.max(start + heads(block / PER_GROUP))
}

/// The end of the group that this block is in.
pub(super) fn group_end(block: u32) -> u32 {
    (block / PER_GROUP + 1) * PER_GROUP
}

/// How many groups, and what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    /// Of the whole file system.
    pub(super) blocks: u32,
    pub(super) block_bitmaps: Vec<u32>,
    pub(super) inode_bitmaps: Vec<u32>,
    /// The first block of each group's inode table.
    pub(super) inode_tables: Vec<u32>,
    /// One past the last block in use.
    end: u32,
    /// Blocks that were passed over, because a table must not be cut by the head of a group.
    gaps: Vec<Range<u32>>,
}

impl Geometry {
    /// For `inodes` inodes after `used` blocks; `None` if no file system is that large.
    pub(super) fn fit(used: u32, inodes: u32) -> Option<Self> {
        (used.div_ceil(PER_GROUP).max(1)..=MAX_GROUPS)
            .find_map(|groups| Self::with(groups, used, inodes))
    }

    fn with(groups: u32, used: u32, inodes: u32) -> Option<Self> {
        let per_group = inodes.div_ceil(groups).max(LEAST_INODES);
        let per_group = per_group.next_multiple_of(INODES_PER_BLOCK);
        let table = per_group / INODES_PER_BLOCK;
        // Cheap, and rules out most of what does not fit.
        if per_group > PER_GROUP || used.checked_add(groups * (2 + table))? > groups * PER_GROUP {
            return None;
        }
        let (mut next, mut gaps) = (data_at(used), vec![]);
        let mut take = |blocks: u32| {
            if next + blocks > group_end(next) {
                gaps.push(next..group_end(next));
                next = group_end(next);
            }
            let start = data_at(next);
            next = start + blocks;
            start
        };
        let block_bitmaps = (0..groups).map(|_| take(1)).collect();
        let inode_bitmaps = (0..groups).map(|_| take(1)).collect();
        let inode_tables = (0..groups).map(|_| take(table)).collect();
        if next.div_ceil(PER_GROUP) > groups {
            return None;
        }
        // Many inodes without contents need more groups than blocks; those are holes.
        let last = groups - 1;
        let blocks = next.max(last * PER_GROUP + heads(last).max(1));
        let inodes_per_group = per_group;
        Some(Self {
            groups,
            inodes_per_group,
            blocks,
            block_bitmaps,
            inode_bitmaps,
            inode_tables,
            end: next,
            gaps,
        })
    }

    pub(super) fn is_used(&self, block: u32) -> bool {
        let is_head = data_at(block) != block;
        let in_gap = || self.gaps.iter().any(|gap| gap.contains(&block));
        is_head || (block < self.end && !in_gap())
    }

    /// Blocks of this group, which the last one may have fewer of.
    pub(super) fn blocks_in(&self, group: u32) -> u32 {
        (self.blocks - group * PER_GROUP).min(PER_GROUP)
    }
}

/// A buffer that is filled field by field.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a mut [u8]);

impl Fields<'_> {
    pub(super) fn u8(&mut self, at: usize, value: u8) -> &mut Self {
        self.0[at] = value;
        self
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) -> &mut Self {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn bytes(&mut self, at: usize, value: &[u8]) -> &mut Self {
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }
}

/// The low and the next 16 bits of a number.
pub(super) fn halves(value: u32) -> (u16, u16) {
    #[allow(clippy::cast_possible_truncation, reason = "it is masked")]
    ((value & 0xffff) as u16, (value >> 16) as u16)
}

/// The low and the high 32 bits of a number.
pub(super) fn words(value: u64) -> (u32, u32) {
    #[allow(clippy::cast_possible_truncation, reason = "it is masked")]
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_and_nothing_overlaps() {
        for (used, inodes) in [
            (FIRST_DATA, 11),
            (PER_GROUP - 2, 11),
            (PER_GROUP + 2, 40_000),
            (100_000, 9_000),
            (FIRST_DATA, 200_000),
            (MAX_GROUPS * PER_GROUP / 2, 1_000_000),
        ] {
            let fit = Geometry::fit(used, inodes).unwrap();
            assert!(fit.groups * fit.inodes_per_group >= inodes, "{fit:?}");
            assert!(fit.end <= fit.blocks && fit.block_bitmaps[0] >= used, "{fit:?}");
            assert_eq!(fit.blocks.div_ceil(PER_GROUP), fit.groups, "{fit:?}");
            let table = fit.inodes_per_group / INODES_PER_BLOCK;
            for start in &fit.inode_tables {
                assert!((*start..start + table).all(|block| data_at(block) == block), "{start}");
            }
        }
        assert_eq!(Geometry::fit(MAX_GROUPS * PER_GROUP - 1, 11), None);
    }

    #[test]
    fn copies_are_where_the_kernel_looks_for_them() {
        let with_copy: Vec<u32> = (0..130).filter(|group| has_superblock(*group)).collect();
        assert_eq!(with_copy, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        let with_table: Vec<u32> = (0..260).filter(|group| has_descriptors(*group)).collect();
        assert_eq!(with_table, [0, 1, 127, 128, 129, 255, 256, 257]);
        assert_eq!((data_at(0), data_at(PER_GROUP), data_at(2 * PER_GROUP)), (2, 32770, 65536));
    }
}
