//! Numbers of the on-disk format, and how blocks are dealt out. Pure.

pub(super) const BLOCK: usize = 4096;
pub(super) const BLOCK_LEN: u64 = BLOCK as u64;
pub(super) const INODE: usize = 256;
pub(super) const INODES_PER_BLOCK: u32 = 16;
/// Blocks, and at most inodes, of one group: the bits of one block.
pub(super) const PER_GROUP: u32 = 32768;
/// Room for group descriptors: 8192 groups, which is 1 TiB.
const DESCRIPTOR_BLOCKS: u32 = 64;
pub(super) const DESCRIPTOR: usize = 32;
pub(super) const MAX_GROUPS: u32 = DESCRIPTOR_BLOCKS * 128;
/// The first block that may hold contents.
pub(super) const FIRST_DATA: u32 = 1 + DESCRIPTOR_BLOCKS;
/// Inodes 1 to 10 are reserved; number 2 is the root.
pub(super) const FIRST_INODE: u32 = 11;

pub(super) const SUPERBLOCK_AT: usize = 1024;
pub(super) const UUID_AT: usize = SUPERBLOCK_AT + 0x68;

/// How many groups, and what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    /// Of the whole file system.
    pub(super) blocks: u32,
    /// The first block after contents: block bitmaps, inode bitmaps, inode tables, in this order.
    pub(super) tables: u32,
}

impl Geometry {
    /// For `inodes` inodes after `used` blocks; `None` if no file system is that large.
    pub(super) fn fit(used: u32, inodes: u32) -> Option<Self> {
        let needed = |groups: u32| -> Option<Self> {
            let per_group = inodes.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK);
            if per_group > PER_GROUP {
                return None;
            }
            let tables = groups.checked_mul(2 + per_group / INODES_PER_BLOCK)?;
            let end = used.checked_add(tables)?;
            if end.div_ceil(PER_GROUP) > groups {
                return None;
            }
            // Many inodes without contents need more groups than blocks; those are holes.
            let blocks = end.max((groups - 1) * PER_GROUP + 1);
            Some(Self { groups, inodes_per_group: per_group, blocks, tables: used })
        };
        (used.div_ceil(PER_GROUP).max(1)..=MAX_GROUPS).find_map(needed)
    }

    pub(super) fn block_bitmap(&self, group: u32) -> u32 {
        self.tables + group
    }

    pub(super) fn inode_bitmap(&self, group: u32) -> u32 {
        self.tables + self.groups + group
    }

    pub(super) fn inode_table(&self, group: u32) -> u32 {
        self.tables + 2 * self.groups + group * (self.inodes_per_group / INODES_PER_BLOCK)
    }

    /// One past the last block in use.
    pub(super) fn end(&self) -> u32 {
        self.inode_table(self.groups)
    }

    pub(super) fn descriptor_blocks(&self) -> u32 {
        self.groups.div_ceil(128)
    }

    pub(super) fn is_used(&self, block: u32) -> bool {
        block <= self.descriptor_blocks() || (FIRST_DATA..self.end()).contains(&block)
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
            (PER_GROUP, 40_000),
            (100_000, 9_000),
            (FIRST_DATA, 200_000),
            (MAX_GROUPS * PER_GROUP / 2, 1_000_000),
        ] {
            let fit = Geometry::fit(used, inodes).unwrap();
            assert!(fit.groups * fit.inodes_per_group >= inodes, "{fit:?}");
            assert!(fit.end() <= fit.blocks, "{fit:?}");
            assert_eq!(fit.blocks.div_ceil(PER_GROUP), fit.groups, "{fit:?}");
            assert!(fit.block_bitmap(0) >= used);
            assert!(fit.descriptor_blocks() < FIRST_DATA);
        }
        assert_eq!(Geometry::fit(MAX_GROUPS * PER_GROUP, 11), None);
    }
}
