//! A root disk that device-mapper made of an image and a file of changes, read without the device.
//!
//! The file is a `dm-snapshot` with persistent exceptions: chunk 0 says so, then come tables, each
//! followed by the chunks that it describes. A table's entry is an old chunk and where it is now; one
//! that is nowhere ends the list. What no table names is the image's, and behind the image zeros.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{ReadAt, ReadError};

const MAGIC: u32 = 0x7041_6e53;
const VERSION: u32 = 1;
const SECTOR: u64 = 512;
const ENTRY: usize = 16;
const LARGEST_CHUNK: u64 = 1 << 20;

#[derive(Debug)]
pub(in crate::host::image) struct Changed {
    base: File,
    base_bytes: u64,
    changes: File,
    chunk: u64,
    moved: HashMap<u64, u64>,
}

impl Changed {
    pub(in crate::host::image) fn open(base: File, changes: File) -> Result<Self, ReadError> {
        let base_bytes = base.metadata()?.len();
        let mut head = [0; 16];
        changes.read_exact_at(&mut head, 0)?;
        let word = |at| super::u32_at(&head, at).unwrap_or(0);
        let mut this = Self { base, base_bytes, changes, chunk: SECTOR, moved: HashMap::new() };
        // Nobody has run on it yet.
        if head == [0; 16] {
            return Ok(this);
        }
        if word(0) != MAGIC || word(8) != VERSION {
            return Err(ReadError::Damaged("list of changes"));
        }
        if word(4) == 0 {
            return Err(ReadError::Damaged("list of changes, which overflowed: it"));
        }
        this.chunk = u64::from(word(12)) * SECTOR;
        if !this.chunk.is_power_of_two() || this.chunk > LARGEST_CHUNK {
            return Err(ReadError::Damaged("list of changes"));
        }
        this.read_tables()?;
        Ok(this)
    }

    fn read_tables(&mut self) -> Result<(), ReadError> {
        let chunks = self.changes.metadata()?.len() / self.chunk;
        let mut table = vec![0; usize::try_from(self.chunk).unwrap_or(0)];
        let per_table = self.chunk / ENTRY as u64;
        let mut at = 1;
        while at < chunks {
            self.changes.read_exact_at(&mut table, at * self.chunk)?;
            for entry in table.chunks_exact(ENTRY) {
                let (old, new) = entry.split_at(8);
                let number =
                    |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
                let (old, new) = (number(old), number(new));
                if new == 0 {
                    return Ok(());
                }
                if new >= chunks {
                    return Err(ReadError::Damaged("list of changes"));
                }
                self.moved.insert(old, new);
            }
            at += per_table + 1;
        }
        Ok(())
    }

    fn read_base(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let there = usize::try_from(self.base_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let (of_base, behind) = into.split_at_mut(there.min(into.len()));
        self.base.read_exact_at(of_base, at)?;
        behind.fill(0);
        Ok(())
    }
}

impl ReadAt for Changed {
    fn read_at(&self, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
        while !into.is_empty() {
            let (number, within) = (at / self.chunk, at % self.chunk);
            let left = usize::try_from(self.chunk - within).unwrap_or(usize::MAX);
            let (this, rest) = into.split_at_mut(left.min(into.len()));
            match self.moved.get(&number) {
                Some(now) => self.changes.read_exact_at(this, now * self.chunk + within)?,
                None => self.read_base(this, at)?,
            }
            at += this.len() as u64;
            into = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    /// Of chunks of 512 bytes: a head, and tables of 32 entries.
    fn changes(entries: &[(u64, u64)], chunks: &[(u64, u8)]) -> File {
        let mut bytes = vec![0; 512 * 80];
        for (at, word) in [(0, MAGIC), (4, 1), (8, VERSION), (12, 1)] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        for (number, (old, new)) in entries.iter().enumerate() {
            // The second table lies behind the chunks of the first.
            let at = 512 * (1 + number / 32 * 33) + number % 32 * ENTRY;
            bytes[at..at + 8].copy_from_slice(&old.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
        }
        for (number, with) in chunks {
            let at = usize::try_from(*number).unwrap() * 512;
            bytes[at..at + 512].fill(*with);
        }
        file(&bytes)
    }

    #[test]
    fn what_was_changed_is_read_from_where_it_is_now() {
        let base = || file(&[1; 1536]);
        let disk = Changed::open(base(), changes(&[(1, 2), (5, 3)], &[(2, 7), (3, 8)])).unwrap();
        let mut seen = vec![9; 3584];
        disk.read_at(&mut seen, 0).unwrap();
        let expected: Vec<u8> = [(1, 512), (7, 512), (1, 512), (0, 1024), (8, 512), (0, 512)]
            .into_iter()
            .flat_map(|(byte, times)| std::iter::repeat_n(byte, times))
            .collect();
        assert!(seen == expected);
        let mut middle = [0; 600];
        disk.read_at(&mut middle, 500).unwrap();
        assert_eq!((middle[11], middle[12], middle[523], middle[524]), (1, 7, 7, 1));

        // So many that a second table is needed.
        let many: Vec<_> = (0..33).map(|n| (100 + n, if n < 32 { 2 + n } else { 35 })).collect();
        let disk = Changed::open(base(), changes(&many, &[(33, 3), (35, 4)])).unwrap();
        for (chunk, byte) in [(131, 3), (132, 4), (133, 0)] {
            let mut one = [9];
            disk.read_at(&mut one, chunk * 512).unwrap();
            assert_eq!(one, [byte], "chunk {chunk}");
        }
        let fresh = Changed::open(base(), file(&[0; 512 * 4])).unwrap();
        assert!(fresh.moved.is_empty());
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        let base = || file(&[1; 512]);
        Changed::open(base(), file(&[3; 4096])).unwrap_err();
        Changed::open(base(), changes(&[(1, 1 << 40)], &[])).unwrap_err();
        Changed::open(base(), file(b"short")).unwrap_err();
    }
}
