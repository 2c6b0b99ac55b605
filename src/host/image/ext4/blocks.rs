//! The file's blocks, given out and written strictly upwards, and hashed on the way. Those at the
//! heads of groups are left out of both.

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::layout::{BLOCK, BLOCK_LEN, FIRST_DATA, MAX_GROUPS, PER_GROUP, data_at, group_end};
use crate::host::disk::write_sparse;
use crate::host::files::write_out_soon;

const BUFFER: usize = 1 << 20;

/// Blocks that follow one another, but for the heads of groups between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) blocks: u32,
}

impl Run {
    pub(super) const NONE: Self = Self { start: 0, blocks: 0 };
}

#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    /// Whole blocks of one group that are not written yet; they begin at block `flushed`.
    buffer: Vec<u8>,
    flushed: u32,
    hash: Sha256,
}

impl Blocks {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER + BLOCK),
            flushed: FIRST_DATA,
            hash: Sha256::new(),
        }
    }

    /// The next free block.
    pub(super) fn next(&self) -> u32 {
        // The buffer holds whole blocks, at most a few hundred.
        self.flushed + u32::try_from(self.buffer.len() / BLOCK).unwrap_or(u32::MAX)
    }

    /// Appends `bytes`, filled up with zeros to whole blocks.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<Run> {
        self.append_from(&mut &bytes[..], bytes.len() as u64)
    }

    /// Appends `len` bytes of `from`; a source that ends before is an error.
    pub(super) fn append_from(&mut self, from: &mut dyn Read, len: u64) -> io::Result<Run> {
        let start = self.next();
        let mut left = len;
        while left > 0 {
            let room = self.room();
            let want = usize::try_from(left).map_or(room, |left| left.min(room));
            let at = self.buffer.len();
            self.buffer.resize(at + want, 0);
            from.read_exact(&mut self.buffer[at..])?;
            left -= want as u64;
            if left == 0 {
                self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
            }
            if self.room() == 0 {
                self.flush()?;
            }
        }
        let blocks = u32::try_from(len.div_ceil(BLOCK_LEN)).map_err(io::Error::other)?;
        Ok(Run { start, blocks })
    }

    /// Bytes until the buffer is full or its group ends.
    fn room(&self) -> usize {
        let in_group = (group_end(self.flushed) - self.flushed) as usize * BLOCK;
        BUFFER.min(in_group) - self.buffer.len()
    }

    /// Leaves holes up to `block`.
    pub(super) fn skip_to(&mut self, block: u32) -> io::Result<()> {
        while self.next() < block {
            self.append(&[0; BLOCK])?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.buffer);
        let at = u64::from(self.flushed) * BLOCK_LEN;
        write_sparse(&self.file, &self.buffer, at)?;
        write_out_soon(&self.file, at, self.buffer.len() as u64);
        self.flushed = data_at(self.next());
        self.buffer.clear();
        if self.flushed >= MAX_GROUPS * PER_GROUP {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "an image ends at 1 TiB"));
        }
        Ok(())
    }

    /// The file, with all blocks so far in it.
    pub(super) fn written(&mut self) -> io::Result<&File> {
        self.flush()?;
        Ok(&self.file)
    }

    /// Writes what is left; gives back the file and the hash of all blocks.
    pub(super) fn finish(mut self) -> io::Result<(File, Sha256)> {
        self.flush()?;
        Ok((self.file, self.hash))
    }
}
