//! The few fields of an ext4 superblock that are read or changed without e2fsprogs.
//!
//! A template is made once by mke2fs and copied for every VM; all that differs is the UUID. With
//! `metadata_csum_seed` no other checksum depends on it, so changing it is one write of 1 KiB.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const AT: u64 = 1024;
const LEN: usize = 1024;
const MAGIC: u16 = 0xef53;
const CHECKSUM: usize = 0x3fc;
const UUID: usize = 0x68;
const STATE: usize = 0x3a;
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const RO_METADATA_CSUM: u32 = 0x400;

#[derive(Debug)]
pub(in crate::host) struct Superblock(Box<[u8; LEN]>);

#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum SuperblockError {
    #[error("read superblock")]
    Read(#[source] io::Error),
    #[error("write superblock")]
    Write(#[source] io::Error),
    #[error("no ext4 file system in it")]
    NotExt4,
    #[error("superblock has a wrong checksum")]
    Checksum,
    #[error("its checksums depend on the UUID, which therefore cannot be changed")]
    Unseeded,
}

impl Superblock {
    pub(in crate::host) fn read(file: &File) -> Result<Self, SuperblockError> {
        let mut bytes = Box::new([0; LEN]);
        match file.read_exact_at(&mut bytes[..], AT) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SuperblockError::NotExt4);
            }
            Err(error) => return Err(SuperblockError::Read(error)),
        }
        let found = Self(bytes);
        if found.u16(0x38) != MAGIC {
            return Err(SuperblockError::NotExt4);
        }
        if found.has_checksum() && found.u32(CHECKSUM) != crc32c(&found.0[..CHECKSUM]) {
            return Err(SuperblockError::Checksum);
        }
        Ok(found)
    }

    pub(in crate::host) fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.0[UUID..UUID + 16]);
        uuid
    }

    /// Bytes that the file system spans.
    pub(in crate::host) fn bytes(&self) -> u64 {
        let blocks = u64::from(self.u32(0x4)) | (u64::from(self.u32(0x150)) << 32);
        blocks.saturating_mul(1024_u64.checked_shl(self.u32(0x18)).unwrap_or(0))
    }

    /// Why nobody should write to this file system before it was checked; none: it was left clean.
    pub(in crate::host) fn unclean(&self) -> Option<&'static str> {
        let state = self.u16(STATE);
        if state & STATE_ERRORS != 0 {
            Some("errors were found in it")
        } else if self.u32(0x60) & INCOMPAT_RECOVER != 0 {
            Some("its journal was not replayed")
        } else if state & STATE_CLEAN == 0 {
            Some("it was not unmounted")
        } else {
            None
        }
    }

    pub(in crate::host) fn change_uuid(
        mut self,
        file: &File,
        uuid: [u8; 16],
    ) -> Result<(), SuperblockError> {
        if self.u32(0x60) & INCOMPAT_CSUM_SEED == 0 {
            return Err(SuperblockError::Unseeded);
        }
        self.0[UUID..UUID + 16].copy_from_slice(&uuid);
        let checksum = crc32c(&self.0[..CHECKSUM]);
        self.0[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&self.0[..], AT).map_err(SuperblockError::Write)
    }

    fn has_checksum(&self) -> bool {
        self.u32(0x64) & RO_METADATA_CSUM != 0
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | (u32::from(self.u16(at + 2)) << 16)
    }
}

/// CRC-32C as ext4 keeps it: seeded with ones and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_known_value() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_no_ext4_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Superblock::read(&file), Err(SuperblockError::NotExt4)));
        file.set_len(1 << 20).unwrap();
        assert!(matches!(Superblock::read(&file), Err(SuperblockError::NotExt4)));
    }
}
