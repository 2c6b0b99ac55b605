//! Superblock and group descriptors, each copy of them, and the part of them that the digest is
//! taken over. Pure.

use super::layout::{
    BLOCK, CHECKSUM_AT, DESCRIPTOR, FIRST_INODE, Fields, Geometry, JOURNAL_INODE, PER_GROUP,
    PER_METAGROUP, SUPERBLOCK_AT, UUID_AT, halves, has_descriptors, has_superblock,
};

/// What is free, and how many directories there are, in one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) blocks: u32,
    pub(super) inodes: u32,
    pub(super) directories: u32,
}

#[derive(Debug)]
pub(super) struct Header {
    /// Block 0, with the superblock in it.
    first: Vec<u8>,
    /// A block for each metagroup.
    descriptors: Vec<Vec<u8>>,
    groups: u32,
}

impl Header {
    /// With the UUID, and the checksums that depend on it, still zero.
    pub(super) fn new(geometry: &Geometry, counts: &[Count], journal: &[u8]) -> Self {
        let metagroups = geometry.groups.div_ceil(PER_METAGROUP) as usize;
        let mut descriptors = vec![vec![0; BLOCK]; metagroups];
        for (group, count) in counts.iter().enumerate() {
            let per_block = PER_METAGROUP as usize;
            let at = group % per_block * DESCRIPTOR;
            Fields(&mut descriptors[group / per_block][at..])
                .u32(0x00, geometry.block_bitmaps[group])
                .u32(0x04, geometry.inode_bitmaps[group])
                .u32(0x08, geometry.inode_tables[group])
                .u16(0x0c, halves(count.blocks).0)
                .u16(0x0e, halves(count.inodes).0)
                .u16(0x10, halves(count.directories).0)
                .u16(0x12, INODES_ZEROED);
        }
        let mut first = vec![0; BLOCK];
        let free = |of: fn(&Count) -> u32| counts.iter().map(of).sum();
        let (blocks, inodes) = (free(|count| count.blocks), free(|count| count.inodes));
        put_superblock(&mut first[SUPERBLOCK_AT..], geometry, blocks, inodes, journal);
        Self { first, descriptors, groups: geometry.groups }
    }

    /// What a file says of itself. The blocks are read by `read`.
    pub(super) fn read<E>(mut read: impl FnMut(u32) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let first = read(0)?;
        let field = |at: usize| {
            let at = SUPERBLOCK_AT + at;
            u32::from_le_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]])
        };
        let groups = field(0x04).div_ceil(PER_GROUP);
        let table = |group: u32| group * PER_GROUP + u32::from(has_superblock(group));
        let descriptors = (0..groups)
            .step_by(PER_METAGROUP as usize)
            .map(|group| read(table(group)))
            .collect::<Result<_, E>>()?;
        Ok(Self { first, descriptors, groups })
    }

    /// Takes out what only the digest decides.
    pub(super) fn unsigned(mut self) -> Self {
        self.first[UUID_AT..UUID_AT + 16].fill(0);
        for descriptor in self.descriptors.iter_mut().flat_map(|block| block.chunks_mut(DESCRIPTOR))
        {
            descriptor[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
        }
        self
    }

    pub(super) fn sign(&mut self, uuid: [u8; 16]) {
        self.first[UUID_AT..UUID_AT + 16].copy_from_slice(&uuid);
        let all = self.descriptors.iter_mut().flat_map(|block| block.chunks_mut(DESCRIPTOR));
        for (group, descriptor) in (0..self.groups).zip(all) {
            let parts = [&uuid[..], &group.to_le_bytes(), &descriptor[..CHECKSUM_AT]];
            let checksum = parts.iter().fold(!0, |crc, part| crc16(crc, part));
            Fields(descriptor).u16(CHECKSUM_AT, checksum);
        }
    }

    /// What the digest covers, in its order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first).chain(&self.descriptors).map(Vec::as_slice)
    }

    /// Every block that has to be written, and where.
    pub(super) fn blocks(&self) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = vec![];
        for group in 0..self.groups {
            let mut at = group * PER_GROUP;
            if has_superblock(group) {
                let mut block = self.first.clone();
                if group > 0 {
                    // A copy fills its block from the beginning, and says whose it is.
                    block = vec![0; BLOCK];
                    block[..1024].copy_from_slice(&self.first[SUPERBLOCK_AT..SUPERBLOCK_AT + 1024]);
                    Fields(&mut block).u16(0x5a, halves(group).0);
                }
                blocks.push((at, block));
                at += 1;
            }
            if has_descriptors(group) {
                blocks.push((at, self.descriptors[(group / PER_METAGROUP) as usize].clone()));
            }
        }
        blocks
    }
}

/// The tables are whole: no kernel has to zero them.
const INODES_ZEROED: u16 = 4;
/// Of the superblock's features "incompat": tells these files from those of the first format.
pub(super) const META_BG: u32 = 0x10;
pub(super) const INCOMPAT_AT: usize = SUPERBLOCK_AT + 0x60;

fn put_superblock(
    into: &mut [u8],
    geometry: &Geometry,
    free_blocks: u32,
    free_inodes: u32,
    journal: &[u8],
) {
    const HAS_JOURNAL: u32 = 0x4;
    const EXT_ATTR: u32 = 0x8;
    const DIR_INDEX: u32 = 0x20;
    const FILETYPE: u32 = 0x2;
    const EXTENTS: u32 = 0x40;
    const FLEX_BG: u32 = 0x200;
    const SPARSE_SUPER: u32 = 0x1;
    const LARGE_FILE: u32 = 0x2;
    const HUGE_FILE: u32 = 0x8;
    const GDT_CSUM: u32 = 0x10;
    const DIR_NLINK: u32 = 0x20;
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
        .u32(0x5c, HAS_JOURNAL | EXT_ATTR | DIR_INDEX)
        .u32(0x60, FILETYPE | META_BG | EXTENTS | FLEX_BG)
        .u32(0x64, SPARSE_SUPER | LARGE_FILE | HUGE_FILE | GDT_CSUM | DIR_NLINK | EXTRA_ISIZE)
        .bytes(0x78, b"banger-image")
        .u32(0xe0, JOURNAL_INODE)
        .bytes(0xec, b"banger-hash-seed") // the same entries give the same bytes
        .u8(0xfc, 1) // directories that grow are hashed with half MD4
        .u8(0xfd, 1) // the journal's inode has a copy here:
        .bytes(0x10c, journal)
        .u32(0x100, 0xc) // user attributes and access control lists
        .u16(0x15c, 32)
        .u16(0x15e, 32)
        .u32(0x160, 1) // signed directory hashes
        .u8(0x174, 4);
}

/// CRC-16 with the polynomial 0x8005, reflected.
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_known_value() {
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }
}
