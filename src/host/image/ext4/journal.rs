//! The journal of a file system that has never been written to: clones of an image are mounted to
//! be written, and a guest that dies then must not cost them their consistency. Pure.

use super::layout::BLOCK;

/// 16 MiB, of which all but the first block is a hole.
pub(super) const BLOCKS: u32 = 4096;

/// The journal's own superblock (jbd2, version 2); unlike all else on the disk it is big-endian.
pub(super) fn superblock() -> Vec<u8> {
    const MAGIC: u32 = 0xc03b_3998;
    const SUPERBLOCK_V2: u32 = 4;
    let mut block = vec![0; BLOCK];
    let block_bytes = u32::try_from(BLOCK).unwrap_or(0);
    // Its first block after this one, the first transaction's number, no transaction to replay,
    // one user.
    for (at, value) in [
        (0x00, MAGIC),
        (0x04, SUPERBLOCK_V2),
        (0x0c, block_bytes),
        (0x10, BLOCKS),
        (0x14, 1),
        (0x18, 1),
        (0x40, 1),
    ] {
        block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    block
}
