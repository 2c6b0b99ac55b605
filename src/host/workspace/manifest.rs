//! A manifest as bytes: what the daemon keeps of a workspace without looking at it. One that a later
//! banger wrote is not understood, which is no error: then nobody knows whether it is stale.

use banger_agent::contract::codec::{self, Decode, Encode};

use sha2::{Digest as _, Sha256};

use crate::model::{Digest, FileStat, Manifest, SentFile};

/// Of files in one piece; a record of the codec must not be large.
const PIECE: usize = 1000;
const LEVEL: i32 = 1;

#[derive(Encode, Decode)]
enum Piece {
    V1 { scanned_ns: i64, files: Vec<File> },
}

#[derive(Encode, Decode)]
struct File {
    /// Bytes that its path shares with the one before.
    shared: u32,
    rest: Vec<u8>,
    is_link: bool,
    mode: u32,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    hash: [u8; 32],
}

/// `None` if it is too large to be written, which no tree of files is.
pub(super) fn encode(manifest: &Manifest) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    let mut last: &[u8] = &[];
    for piece in manifest.files.chunks(PIECE) {
        let files = piece.iter().map(|file| {
            let shared = last.iter().zip(&file.path).take_while(|(a, b)| a == b).count();
            last = &file.path;
            pack(file, shared)
        });
        let piece = Piece::V1 { scanned_ns: manifest.scanned_ns, files: files.collect() };
        let record = codec::encode(&piece).ok()?;
        bytes.extend_from_slice(&u32::try_from(record.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&record);
    }
    zstd::bulk::compress(&bytes, LEVEL).ok()
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

pub(super) fn decode(bytes: &[u8]) -> Option<Manifest> {
    let bytes = zstd::stream::decode_all(bytes).ok()?;
    let (mut rest, mut manifest) = (bytes.as_slice(), Manifest::default());
    let mut last: Vec<u8> = vec![];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let Piece::V1 { scanned_ns, files } = codec::decode(after.get(..length)?).ok()?;
        manifest.scanned_ns = scanned_ns;
        for file in files {
            last.truncate(usize::try_from(file.shared).ok()?);
            last.extend_from_slice(&file.rest);
            manifest.files.push(unpack(file, last.clone()));
        }
        rest = after.get(length..)?;
    }
    rest.is_empty().then_some(manifest)
}

fn pack(file: &SentFile, shared: usize) -> File {
    let FileStat { is_link, mode, size, mtime_ns, ctime_ns, inode } = file.stat;
    File {
        shared: u32::try_from(shared).unwrap_or(0),
        rest: file.path.get(shared..).unwrap_or_default().to_vec(),
        is_link,
        mode,
        size,
        mtime_ns,
        ctime_ns,
        inode,
        hash: file.hash.0,
    }
}

fn unpack(file: File, path: Vec<u8>) -> SentFile {
    let File { is_link, mode, size, mtime_ns, ctime_ns, inode, hash, .. } = file;
    let stat = FileStat { is_link, mode, size, mtime_ns, ctime_ns, inode };
    SentFile { path, stat, hash: Digest(hash) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_damage_is_seen() {
        let file = |n: u32| SentFile {
            path: format!("src/deep/f{n:05}\n").into_bytes(),
            stat: FileStat { mode: 0o644, size: u64::from(n), mtime_ns: -5, ..FileStat::default() },
            hash: Digest([n.to_le_bytes()[0]; 32]),
        };
        let manifest = Manifest { scanned_ns: 77, files: (0..2500).map(file).collect() };
        let bytes = encode(&manifest).unwrap();
        assert_eq!(decode(&bytes), Some(manifest));
        assert_eq!(decode(&bytes[..bytes.len() / 2]), None);
        assert_eq!(decode(b"nonsense"), None);
        assert_eq!(decode(&encode(&Manifest::default()).unwrap()), Some(Manifest::default()));
    }
}
