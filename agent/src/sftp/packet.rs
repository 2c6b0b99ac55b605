//! Packets: a length, a kind, and fields in the order that the kind says.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// As OpenSSH's: a longer one is no sftp.
pub(super) const MAX_PACKET: usize = 256 << 10;
const LENGTH_BYTES: usize = 4;

/// Takes bytes as they come and gives whole packets, without their length.
#[derive(Debug, Default)]
pub(super) struct Requests {
    held: Vec<u8>,
    read: usize,
}

impl Requests {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..self.read);
        self.read = 0;
        self.held.extend_from_slice(bytes);
    }

    /// `None` asks for more bytes.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.held.get(self.read..).unwrap_or_default();
        let Some(length) = left.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_PACKET {
            return Err(bad());
        }
        let Some(packet) = left.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(None) };
        let packet = packet.to_vec();
        self.read += LENGTH_BYTES + length;
        Ok(Some(packet))
    }
}

/// The fields of one packet, read from the front.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(bad)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> io::Result<u8> {
        self.take(1).map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)))
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        let bytes = self.take(8)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }

    pub(super) fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The empty path is where the client is.
    pub(super) fn path(&mut self) -> io::Result<&'a Path> {
        let bytes = self.string()?;
        let bytes = if bytes.is_empty() { b".".as_slice() } else { bytes };
        Ok(Path::new(OsStr::from_bytes(bytes)))
    }
}

/// One packet, written in place: its length is set when it is dropped.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Reply<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, kind: u8) -> Self {
        let start = out.len();
        out.extend([0; LENGTH_BYTES]);
        out.push(kind);
        Self { out, start }
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend(value.to_be_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend(value.to_be_bytes());
        self
    }

    pub(super) fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(bytes);
        self
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        let length = self.out.len() - self.start - LENGTH_BYTES;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = self.out.get_mut(self.start..self.start + LENGTH_BYTES) {
            place.copy_from_slice(&length);
        }
    }
}

pub(super) fn bad() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no sftp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_any_cut_and_nonsense_is_refused() {
        let mut stream = vec![];
        Reply::new(&mut stream, 5).u32(7).string(b"name").u64(9);
        Reply::new(&mut stream, 6).u32(8);
        for cut in 0..=stream.len() {
            let mut requests = Requests::default();
            let mut got = vec![];
            for part in [&stream[..cut], &stream[cut..]] {
                requests.push(part);
                while let Some(packet) = requests.next().unwrap() {
                    got.push(packet);
                }
            }
            let [first, second] = &got[..] else { panic!("{got:?}") };
            let mut fields = Fields(first);
            assert_eq!((fields.byte().unwrap(), fields.u32().unwrap()), (5, 7));
            assert_eq!((fields.string().unwrap(), fields.u64().unwrap()), (b"name".as_slice(), 9));
            assert!(fields.byte().is_err(), "nothing is left");
            assert_eq!(second, &[6, 0, 0, 0, 8]);
        }
        for length in [0_u32, 1 << 30] {
            let mut requests = Requests::default();
            requests.push(&length.to_be_bytes());
            assert!(requests.next().is_err());
        }
        assert!(Fields(&[0, 0, 0, 9, b'x']).string().is_err(), "longer than its packet");
    }
}
