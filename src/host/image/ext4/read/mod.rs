//! Reads ext4 file systems without mounting them: images, and root disks that a guest wrote to.
//!
//! ```text
//! volume   superblock, group descriptors, inodes
//! extents  where a file's contents are; holes are zeros
//! names    directories, walked from the root in the order of names
//! attrs    extended attributes
//! ```
//!
//! A guest's disk may say anything: every number is checked before it is used, nothing is followed
//! twice, and what is not understood is refused by its name. What must not be done here: write; trust a
//! file system that was not left clean.

mod attrs;
mod changes;
mod extents;
mod names;
mod volume;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(in crate::host::image) use changes::Changed;
pub(in crate::host::image) use extents::Contents;
pub(in crate::host::image) use names::{Content, Found};
pub(in crate::host::image) use volume::Volume;

/// Why a file system cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::host::image) enum ReadError {
    #[error("it is no ext4 file system")]
    NotExt4,
    #[error("it was not left clean")]
    NotClean,
    #[error("it has the feature {0}, which is not supported")]
    Feature(&'static str),
    #[error("its {0} is damaged")]
    Damaged(&'static str),
    #[error("{entry:?}: its {what} is damaged")]
    DamagedAt { entry: String, what: &'static str },
    #[error("read")]
    Io(#[from] io::Error),
}

/// What is read by place.
pub(in crate::host::image) trait ReadAt: Send + Sync {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
