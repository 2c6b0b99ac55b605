//! Where the contents of a file are.

use std::io::{self, Read};

use super::volume::{Inode, Volume};
use super::{ReadError, u16_at, u32_at};

const MAGIC: u16 = 0xf30a;
const ENTRY: usize = 12;
const MAX_DEPTH: u16 = 5;
/// Blocks of one that is written; what is longer by this is reserved and reads as zeros.
const MOST: u32 = 32_768;
/// A file in more pieces has a list that says something twice.
const MAX_PIECES: usize = 4_000_000;

/// So many blocks of a file, from its block `first` on, begin at `start`; 0 of zeros.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u64,
    blocks: u64,
    start: u64,
}

/// Reads a file from its beginning to its end.
#[derive(Debug)]
pub(in crate::host::image) struct Contents {
    volume: Volume,
    pieces: std::vec::IntoIter<Piece>,
    piece: Option<Piece>,
    at: u64,
    size: u64,
}

impl Volume {
    pub(super) fn contents(&self, inode: &Inode) -> Result<Contents, ReadError> {
        let mut pieces = vec![];
        if inode.has_extents {
            self.pieces(&inode.data, None, &mut pieces)?;
        } else if inode.size > 0 {
            return Err(ReadError::Feature("files without extents"));
        }
        let sorted = pieces.windows(2).all(|two| two[0].first + two[0].blocks <= two[1].first);
        if !sorted {
            return Err(ReadError::Damaged("list of extents"));
        }
        let mut pieces = pieces.into_iter();
        let piece = pieces.next();
        Ok(Contents { volume: self.clone(), pieces, piece, at: 0, size: inode.size })
    }

    /// `depth` is what the node must have, to which another led.
    fn pieces(
        &self,
        node: &[u8],
        depth: Option<u16>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), ReadError> {
        let damaged = || ReadError::Damaged("list of extents");
        let header = |at| u16_at(node, at).ok_or_else(damaged);
        let (count, level) = (usize::from(header(2)?), header(6)?);
        if header(0)? != MAGIC || level > MAX_DEPTH || depth.is_some_and(|depth| depth != level) {
            return Err(damaged());
        }
        for number in 1..=count {
            let entry = node.get(number * ENTRY..(number + 1) * ENTRY).ok_or_else(damaged)?;
            let u32s = |at| u32_at(entry, at).unwrap_or(0);
            let u16s = |at| u16_at(entry, at).unwrap_or(0);
            if level > 0 {
                let block = u64::from(u16s(8)) << 32 | u64::from(u32s(4));
                self.pieces(&self.read_block(block)?, Some(level - 1), pieces)?;
                continue;
            }
            let length = u32::from(u16s(4));
            let start = u64::from(u16s(6)) << 32 | u64::from(u32s(8));
            let (blocks, start) = if length > MOST { (length - MOST, 0) } else { (length, start) };
            let end = start.saturating_add(u64::from(blocks));
            if blocks == 0 || end > self.blocks || pieces.len() == MAX_PIECES {
                return Err(damaged());
            }
            pieces.push(Piece { first: u64::from(u32s(0)), blocks: u64::from(blocks), start });
        }
        Ok(())
    }
}

impl Contents {
    /// As far as it is one piece or one hole: how many bytes, and where they begin.
    fn next_run(&mut self) -> (u64, Option<u64>) {
        let block = self.volume.block;
        let number = self.at / block;
        while self.piece.is_some_and(|piece| piece.first + piece.blocks <= number) {
            self.piece = self.pieces.next();
        }
        let left = self.size - self.at;
        let Some(Piece { first, blocks, start }) = self.piece else { return (left, None) };
        if number < first {
            return ((first * block - self.at).min(left), None);
        }
        let run = ((first + blocks) * block - self.at).min(left);
        let at = (start + number - first) * block + self.at % block;
        (run, (start != 0).then_some(at))
    }
}

impl Read for Contents {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size || into.is_empty() {
            return Ok(0);
        }
        let (run, from) = self.next_run();
        let length = usize::try_from(run).unwrap_or(usize::MAX).min(into.len());
        let into = &mut into[..length];
        match from {
            None => into.fill(0),
            Some(at) => {
                let block = self.volume.block;
                let read = self.volume.read_in_block(at / block, at % block, into);
                read.map_err(io::Error::other)?;
            }
        }
        self.at += length as u64;
        Ok(length)
    }
}
