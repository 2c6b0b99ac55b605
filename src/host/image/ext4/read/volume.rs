//! The superblock, the groups and their inodes.

use std::sync::Arc;

use super::{ReadAt, ReadError, u16_at, u32_at};
use crate::host::image::ext4::layout::has_superblock;
use crate::host::image::ext4::tree::Meta;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
pub(super) const ROOT: u32 = 2;
/// Of what a group's description has at least.
const SHORT_DESCRIPTOR: usize = 32;

const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const EXTENTS: u32 = 0x40;
const WIDE: u32 = 0x80;
/// FILETYPE, META_BG, EXTENTS, 64BIT, FLEX_BG, CSUM_SEED, LARGEDIR.
const UNDERSTOOD: u32 = 0x2 | META_BG | EXTENTS | WIDE | 0x200 | 0x2000 | 0x4000;
const FEATURES: [(u32, &str); 7] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];

/// A file system that can be read.
#[derive(Clone)]
pub(in crate::host::image) struct Volume {
    device: Arc<dyn ReadAt>,
    pub(super) block: u64,
    pub(super) blocks: u64,
    first_data: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: usize,
    descriptor: usize,
    /// Groups whose descriptions lie in one block with META_BG, which is where they are then.
    spread: Option<u64>,
    blocks_per_group: u64,
}

/// An inode, as far as its numbers make sense.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) links: u16,
    pub(super) has_extents: bool,
    /// `i_block`: extents, a short link, or a device's number.
    pub(super) data: [u8; 60],
    pub(super) meta: Meta,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl Volume {
    pub(in crate::host::image) fn open(device: Arc<dyn ReadAt>) -> Result<Self, ReadError> {
        let mut bytes = [0; 1024];
        device.read_at(&mut bytes, SUPERBLOCK)?;
        let u16s = |at| u16_at(&bytes, at).unwrap_or(0);
        let u32s = |at| u32_at(&bytes, at).unwrap_or(0);
        if u16s(0x38) != MAGIC {
            return Err(ReadError::NotExt4);
        }
        let incompatible = u32s(0x60);
        if incompatible & RECOVER != 0 {
            return Err(ReadError::NotClean);
        }
        if let Some((_, name)) = FEATURES.iter().find(|(bit, _)| incompatible & bit != 0) {
            return Err(ReadError::Feature(name));
        }
        if incompatible & !UNDERSTOOD != 0 {
            return Err(ReadError::Feature("of a later release"));
        }
        let damaged = ReadError::Damaged("superblock");
        let wide = incompatible & WIDE != 0;
        let shift = u32s(0x18);
        let block = if shift <= 6 { 1024_u64 << shift } else { return Err(damaged) };
        let high = if wide { u64::from(u32s(0x150)) << 32 } else { 0 };
        let descriptor = if wide { usize::from(u16s(0xfe)) } else { SHORT_DESCRIPTOR };
        let volume = Self {
            device,
            block,
            blocks: high | u64::from(u32s(0x4)),
            first_data: u64::from(u32s(0x14)),
            inodes: u32s(0),
            inodes_per_group: u32s(0x28),
            inode_size: usize::from(u16s(0x58)),
            descriptor,
            spread: (incompatible & META_BG != 0).then_some(u64::from(u32s(0x104))),
            blocks_per_group: u64::from(u32s(0x20)),
        };
        let sizes = [volume.descriptor, volume.inode_size];
        let whole = sizes.iter().all(|size| size.is_power_of_two() && *size as u64 <= block);
        let fits = volume.descriptor >= SHORT_DESCRIPTOR && volume.inode_size >= 128;
        if !whole || !fits || volume.inodes_per_group == 0 || volume.blocks_per_group == 0 {
            return Err(damaged);
        }
        Ok(volume)
    }

    /// A block's contents.
    pub(super) fn read_block(&self, number: u64) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; usize::try_from(self.block).unwrap_or(0)];
        self.read_in_block(number, 0, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read_in_block(
        &self,
        number: u64,
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), ReadError> {
        if number >= self.blocks || number == 0 {
            return Err(ReadError::Damaged("list of blocks"));
        }
        let at = number.checked_mul(self.block).and_then(|at| at.checked_add(skip));
        Ok(self.device.read_at(into, at.ok_or(ReadError::Damaged("list of blocks"))?)?)
    }

    fn inode_table(&self, group: u32) -> Result<u64, ReadError> {
        let per_block = self.block / self.descriptor as u64;
        let (index, within) = (u64::from(group) / per_block, u64::from(group) % per_block);
        let block = match self.spread {
            // Each block of them begins the first of the groups that it describes; the superblock
            // lies before it where there is a copy of that.
            Some(first) if index >= first => {
                let first_group = u32::try_from(index * per_block).unwrap_or(u32::MAX);
                let start = self.first_data + u64::from(first_group) * self.blocks_per_group;
                start + u64::from(has_superblock(first_group))
            }
            _ => self.first_data + 1 + index,
        };
        let mut bytes = vec![0; self.descriptor];
        self.read_in_block(block, within * self.descriptor as u64, &mut bytes)?;
        let low = u64::from(u32_at(&bytes, 0x8).unwrap_or(0));
        let high = u64::from(u32_at(&bytes, 0x28).unwrap_or(0));
        Ok(high << 32 | low)
    }

    pub(super) fn inode(&self, number: u32) -> Result<Inode, ReadError> {
        let damaged = || ReadError::Damaged("number of an inode");
        let index = number.checked_sub(1).filter(|_| number <= self.inodes).ok_or_else(damaged)?;
        let table = self.inode_table(index / self.inodes_per_group)?;
        let at = u64::from(index % self.inodes_per_group) * self.inode_size as u64;
        let mut bytes = vec![0; self.inode_size];
        self.read_in_block(table + at / self.block, at % self.block, &mut bytes)?;
        self.parse(number, &bytes)
    }

    fn parse(&self, number: u32, bytes: &[u8]) -> Result<Inode, ReadError> {
        let u16s = |at| u16_at(bytes, at).unwrap_or(0);
        let u32s = |at| u32_at(bytes, at).unwrap_or(0);
        let flags = u32s(0x20);
        for (bit, name) in
            [(0x800, "encrypt"), (0x1000_0000, "inline_data"), (0x20_0000, "ea_inode")]
        {
            if flags & bit != 0 {
                return Err(ReadError::Feature(name));
            }
        }
        let wide = |low: usize, high: usize| u32::from(u16s(high)) << 16 | u32::from(u16s(low));
        let extra = if bytes.len() > 128 { usize::from(u16s(0x80)) } else { 0 };
        // The clock's own 32 bits are signed; two more bits of the extra count the times around.
        let stamp = if extra >= 0x8c - 128 { u32s(0x88) } else { 0 };
        let mtime = i64::from(u32s(0x10).cast_signed()) + (i64::from(stamp & 3) << 32);
        let mut data = [0; 60];
        data.copy_from_slice(bytes.get(0x28..0x64).ok_or(ReadError::Damaged("inode"))?);
        let block = u64::from(u16s(0x76)) << 32 | u64::from(u32s(0x68));
        let mode = u16s(0);
        Ok(Inode {
            number,
            mode,
            size: u64::from(u32s(0x6c)) << 32 | u64::from(u32s(0x4)),
            links: u16s(0x1a),
            has_extents: flags & 0x8_0000 != 0,
            data,
            meta: Meta {
                mode: mode & 0o7777,
                uid: wide(0x2, 0x78),
                gid: wide(0x18, 0x7a),
                mtime,
                mtime_nsec: stamp >> 2,
                xattrs: self.attributes(bytes, extra, block)?,
            },
        })
    }
}
