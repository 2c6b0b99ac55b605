//! Compressed streams, known by their first bytes.

use std::io::{self, BufRead, Read};

/// A stream that was recognised, and its name.
pub(super) struct Unpacked {
    pub(super) from: Box<dyn Read + Send>,
    pub(super) format: &'static str,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked").field("format", &self.format).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("read")]
    Read(#[source] io::Error),
    #[error("it is packed with {0}, which is not supported; use gzip, xz or zstd")]
    Unsupported(&'static str),
}

/// The format of what is not packed.
pub(super) const PLAIN: &str = "plain";

const UNSUPPORTED: [(&[u8], &str); 6] = [
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x5d\x00\x00", "lzma"),
    (b"LZIP", "lzip"),
    (b"\x1f\x9d", "compress"),
];

/// Packed or not; what is not recognised passes through.
pub(super) fn unpack(mut from: impl BufRead + Send + 'static) -> Result<Unpacked, UnpackError> {
    let start = peek(&mut from).map_err(UnpackError::Read)?;
    for (magic, name) in UNSUPPORTED {
        if start.starts_with(magic) {
            return Err(UnpackError::Unsupported(name));
        }
    }
    if start.starts_with(b"\x1f\x8b") {
        let from = Box::new(flate2::bufread::MultiGzDecoder::new(from));
        return Ok(Unpacked { from, format: "gzip" });
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        let from = Box::new(lzma_rust2::XzReader::new(from, true));
        return Ok(Unpacked { from, format: "xz" });
    }
    if start.starts_with(b"\x28\xb5\x2f\xfd") {
        let from = zstd::stream::read::Decoder::with_buffer(from).map_err(UnpackError::Read)?;
        return Ok(Unpacked { from: Box::new(from), format: "zstd" });
    }
    Ok(Unpacked { from: Box::new(from), format: PLAIN })
}

/// The first bytes; a pipe may give fewer at once than asked for, but no writer of these formats
/// splits the magic number from what follows.
fn peek(from: &mut impl BufRead) -> io::Result<[u8; 8]> {
    let mut start = [0; 8];
    let seen = from.fill_buf()?;
    let len = seen.len().min(8);
    start[..len].copy_from_slice(&seen[..len]);
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn read(bytes: Vec<u8>) -> (Vec<u8>, &'static str) {
        let mut unpacked = unpack(Cursor::new(bytes)).unwrap();
        let mut out = Vec::new();
        unpacked.from.read_to_end(&mut out).unwrap();
        (out, unpacked.format)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gz.write_all(text).unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn packed_and_plain_come_out_alike() {
        let text = b"some text".repeat(1000);
        let mut xz =
            lzma_rust2::XzWriter::new(vec![], lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&text).unwrap();
        let packed = [
            (text.clone(), "plain"),
            (gzip(&text), "gzip"),
            (xz.finish().unwrap(), "xz"),
            (zstd::encode_all(&text[..], 1).unwrap(), "zstd"),
        ];
        for (bytes, format) in packed {
            assert_eq!(read(bytes), (text.clone(), format));
        }
        assert_eq!(read(vec![]), (vec![], "plain"));
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let packed = gzip(&b"some text".repeat(1000));
        let mut cut = unpack(Cursor::new(packed[..packed.len() - 9].to_vec())).unwrap();
        assert!(cut.from.read_to_end(&mut vec![]).is_err());
    }

    #[test]
    fn others_are_refused_by_name() {
        let error = unpack(Cursor::new(b"BZh91AY".to_vec())).unwrap_err();
        assert!(error.to_string().contains("bzip2"));
    }
}
