//! RPM packages: a lead, two headers of tags that are of no interest here, and a packed cpio.
//!
//! Sources: "RPM V4 Package format" of rpm.org's reference manual; cpio(5), "New ASCII Format".

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::super::unpack::{UnpackError, unpack};

pub(super) const MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const LEAD: u64 = 96;
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// Its magic, four reserved bytes, the number of tags and the bytes of their values.
const HEADER: usize = 16;
const TAG: u64 = 16;

#[derive(Debug, thiserror::Error)]
pub(super) enum RpmError {
    #[error("it is no RPM package")]
    NotRpm,
    #[error("it is cut short")]
    CutShort,
    #[error("its files are not in the form that all readers of cpio know")]
    Form,
    #[error("read")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

impl From<io::Error> for RpmError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutShort,
            _ => Self::Read(error),
        }
    }
}

/// The files of the package.
pub(super) fn files(file: &mut File) -> Result<Files<Box<dyn Read + Send>>, RpmError> {
    file.seek(SeekFrom::Start(0))?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(RpmError::NotRpm);
    }
    let signatures = header(file, LEAD)?;
    // Only what follows the signatures begins at a multiple of eight.
    let payload = header(file, signatures.next_multiple_of(8))?;
    file.seek(SeekFrom::Start(payload))?;
    let packed = BufReader::with_capacity(1 << 16, file.try_clone()?);
    Ok(Files { from: unpack(packed)?.from, left: 0, padding: 0 })
}

/// Where the header that begins at `at` ends.
fn header(file: &mut File, at: u64) -> Result<u64, RpmError> {
    file.seek(SeekFrom::Start(at))?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let [m0, m1, m2, m3, _, _, _, _, t0, t1, t2, t3, v0, v1, v2, v3] = header;
    if [m0, m1, m2, m3] != HEADER_MAGIC {
        return Err(RpmError::NotRpm);
    }
    let tags = u64::from(u32::from_be_bytes([t0, t1, t2, t3]));
    let values = u64::from(u32::from_be_bytes([v0, v1, v2, v3]));
    Ok(at + HEADER as u64 + tags * TAG + values)
}

/// A cpio archive, read once, in its order.
pub(super) struct Files<R> {
    from: R,
    /// Of the present file's content, and what fills it up.
    left: u64,
    padding: u64,
}

/// What there is to know of one; links and directories have no content that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
}

const ENTRY: usize = 110;
/// No path is longer, whatever a header says.
const LONGEST: u64 = 4096;

impl<R: Read> Files<R> {
    /// `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, RpmError> {
        self.skip(self.left + self.padding)?;
        let mut header = [0; ENTRY];
        self.from.read_exact(&mut header)?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(RpmError::Form);
        }
        let (is_regular, size) = (field(&header, 1)? & 0o170_000 == 0o100_000, field(&header, 6)?);
        let length = field(&header, 11)?;
        if length == 0 || length > LONGEST {
            return Err(RpmError::Form);
        }
        let mut name = vec![0; usize::try_from(length).map_err(|_| RpmError::Form)?];
        self.from.read_exact(&mut name)?;
        name.pop();
        self.skip(fill(ENTRY as u64 + length))?;
        if name == b"TRAILER!!!" {
            return Ok(None);
        }
        self.left = size;
        self.padding = fill(size);
        Ok(Some(Entry { name, size: if is_regular { size } else { 0 } }))
    }

    /// Of the present file.
    pub(super) fn contents(&mut self) -> impl Read + '_ {
        Contents(self)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), RpmError> {
        let skipped = io::copy(&mut (&mut self.from).take(bytes), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped < bytes { Err(RpmError::CutShort) } else { Ok(()) }
    }
}

struct Contents<'a, R>(&'a mut Files<R>);

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (&mut self.0.from).take(self.0.left).read(buffer)?;
        self.0.left -= length as u64;
        Ok(length)
    }
}

/// The nth number behind the magic, of eight hexadecimal digits.
fn field(header: &[u8; ENTRY], number: usize) -> Result<u64, RpmError> {
    let digits = header.get(6 + number * 8..14 + number * 8).unwrap_or_default();
    let text = std::str::from_utf8(digits).map_err(|_| RpmError::Form)?;
    u32::from_str_radix(text, 16).map(u64::from).map_err(|_| RpmError::Form)
}

/// Zeros up to the next multiple of four.
fn fill(length: u64) -> u64 {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use super::super::super::cpio::Cpio;
    use super::*;

    /// A package of these files, for tests.
    pub(in super::super) fn package(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut cpio = Cpio::new(vec![]);
        cpio.dir("./lib").unwrap();
        for (name, bytes) in files {
            cpio.file(&format!("./{name}"), 0o644, bytes).unwrap();
        }
        let mut rpm = MAGIC.to_vec();
        rpm.resize(96, 0);
        for (tags, values) in [(1_u32, 5_u32), (2, 7)] {
            rpm.resize(rpm.len().next_multiple_of(8), 0);
            rpm.extend(HEADER_MAGIC);
            rpm.extend([0; 4]);
            rpm.extend(tags.to_be_bytes());
            rpm.extend(values.to_be_bytes());
            rpm.resize(rpm.len() + (tags * 16 + values) as usize, 0x55);
        }
        rpm.extend(zstd::encode_all(&cpio.finish().unwrap()[..], 1).unwrap());
        rpm
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn files_come_in_order_read_or_not() {
        let long = vec![7; 100_001];
        let rpm = package(&[("a", b"one".to_vec()), ("lib/b", long.clone()), ("c", vec![])]);
        let mut file = file(&rpm);
        for read in [true, false] {
            let mut files = files(&mut file).unwrap();
            let mut seen = vec![];
            while let Some(Entry { name, size }) = files.next().unwrap() {
                let mut bytes = vec![];
                if read {
                    files.contents().read_to_end(&mut bytes).unwrap();
                    assert_eq!(bytes.len() as u64, size);
                    assert!(name != b"./lib/b" || bytes == long);
                }
                seen.push((String::from_utf8(name).unwrap(), size));
            }
            let names: Vec<_> = seen.iter().map(|(name, size)| (name.as_str(), *size)).collect();
            assert_eq!(names, [("./lib", 0), ("./a", 3), ("./lib/b", 100_001), ("./c", 0)]);
        }
    }

    #[test]
    fn what_is_no_package_or_a_part_of_one_is_refused() {
        assert!(matches!(files(&mut file(b"hello")), Err(RpmError::NotRpm)));
        assert!(matches!(files(&mut file(b"")), Err(RpmError::CutShort)));
        let rpm = package(&[("a", vec![1; 5000])]);
        for cut in [50, 100, 130, 150, rpm.len() - 4] {
            let mut file = file(&rpm[..cut]);
            let read = files(&mut file).and_then(|mut files| {
                while files.next()?.is_some() {}
                Ok(())
            });
            assert!(read.is_err(), "cut at {cut}");
        }
    }
}
