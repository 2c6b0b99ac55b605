//! Checks a finished image against its name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

use super::layout::{BLOCK, BLOCK_LEN, FIRST_DATA, UUID_AT};
use crate::model::Digest;

/// The UUID of the image with this digest.
pub(in crate::host::image) fn uuid_of(digest: Digest) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest.0[..16]);
    // Version 8, "whatever the maker says", of the usual variant.
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

/// Reads the whole image. `going_on` is asked now and then.
pub(in crate::host::image) fn digest_of(
    file: &File,
    mut going_on: impl FnMut() -> io::Result<()>,
) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let first = u64::from(FIRST_DATA) * BLOCK_LEN;
    let mut at = first;
    loop {
        going_on()?;
        match file.read_at(&mut buffer, at)? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
    let mut header = vec![0; FIRST_DATA as usize * BLOCK];
    file.read_exact_at(&mut header, 0)?;
    header[UUID_AT..UUID_AT + 16].fill(0);
    hash.update(&header);
    Ok(Digest(hash.finalize().into()))
}
