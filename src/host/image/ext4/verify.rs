//! Checks a finished image against its name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

use super::header::{Header, INCOMPAT_AT, META_BG};
use super::layout::{BLOCK, BLOCK_LEN, FIRST_DATA, UUID_AT, data_at, group_end};
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

/// Files of the first format had room for descriptors here, and no block anywhere that was not
/// contents. They cannot be written to, but guests still run from them.
const FIRST_DATA_V1: u32 = 65;

/// Whether clones of it can be written to and grow: it has a journal, and copies of its superblock
/// where a kernel looks for them.
pub(in crate::host::image) fn is_growable(file: &File) -> io::Result<bool> {
    Ok(u32_at(&read_block(file, 0)?, INCOMPAT_AT) & META_BG != 0)
}

/// Reads the whole image. `going_on` is asked now and then.
pub(in crate::host::image) fn digest_of(
    file: &File,
    mut going_on: impl FnMut() -> io::Result<()>,
) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let growable = is_growable(file)?;
    let end = file.metadata()?.len() / BLOCK_LEN;
    let mut buffer = vec![0; 1 << 20];
    let mut at = if growable { FIRST_DATA } else { FIRST_DATA_V1 };
    while u64::from(at) < end {
        going_on()?;
        let room = u64::try_from(buffer.len() / BLOCK).unwrap_or(1).min(end - u64::from(at));
        let blocks = u32::try_from(room).unwrap_or(1).min(group_end(at) - at);
        let bytes = &mut buffer[..blocks as usize * BLOCK];
        file.read_exact_at(bytes, u64::from(at) * BLOCK_LEN)?;
        hash.update(bytes);
        at += blocks;
        if growable {
            at = data_at(at);
        }
    }
    if growable {
        let header = Header::read(|at| read_block(file, at))?.unsigned();
        header.parts().for_each(|part| hash.update(part));
    } else {
        let mut header = vec![0; FIRST_DATA_V1 as usize * BLOCK];
        file.read_exact_at(&mut header, 0)?;
        header[UUID_AT..UUID_AT + 16].fill(0);
        hash.update(&header);
    }
    Ok(Digest(hash.finalize().into()))
}

/// Whether what the digest does not cover is as it is made: UUID, checksums, copies of the superblock.
/// Then the digest says every byte of the file.
pub(in crate::host::image) fn is_as_made(file: &File, digest: Digest) -> io::Result<bool> {
    if !is_growable(file)? {
        return Ok(read_block(file, 0)?[UUID_AT..UUID_AT + 16] == uuid_of(digest));
    }
    let mut header = Header::read(|at| read_block(file, at))?.unsigned();
    header.sign(uuid_of(digest));
    for (at, block) in header.blocks() {
        if read_block(file, at)? != block {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes what the digest does not cover as it should be.
#[cfg(test)]
pub(in crate::host::image) fn resign(file: &File, digest: Digest) -> io::Result<()> {
    let mut header = Header::read(|at| read_block(file, at))?.unsigned();
    header.sign(uuid_of(digest));
    let mut blocks = header.blocks().into_iter();
    blocks.try_for_each(|(at, block)| file.write_all_at(&block, u64::from(at) * BLOCK_LEN))
}

fn read_block(file: &File, at: u32) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK];
    file.read_exact_at(&mut block, u64::from(at) * BLOCK_LEN)?;
    Ok(block)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_first_format_are_known_by_their_own_rule() {
        let mut bytes = vec![0; (FIRST_DATA_V1 as usize + 2) * BLOCK];
        bytes[UUID_AT..UUID_AT + 16].fill(9);
        bytes[FIRST_DATA_V1 as usize * BLOCK] = 1;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        assert!(!is_growable(&file).unwrap());
        bytes[UUID_AT..UUID_AT + 16].fill(0);
        let (header, contents) = bytes.split_at(FIRST_DATA_V1 as usize * BLOCK);
        let expected = Sha256::new_with_prefix(contents).chain_update(header).finalize();
        assert_eq!(digest_of(&file, || Ok(())).unwrap(), Digest(expected.into()));
    }
}
