//! Reads tar archives entry by entry: ustar, GNU and PAX.
//!
//! Stricter than `tar::Archive`, whose header decoding it uses: long names and PAX records have a
//! limit, what is not understood is refused instead of skipped, and an archive must have its end
//! mark, so that one cut short between two entries is noticed. A layer of an image, known to be
//! whole by its digest, may do without.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::ext4::{Special, shown};
use super::sparse::{self, Parts, Pax};

const BLOCK: usize = 512;
/// Of a long name or the PAX records of one entry.
const MAX_EXTRA: u64 = 1 << 20;
const MAX_GLOBAL: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    #[error("read archive")]
    Read(#[source] io::Error),
    #[error("archive is cut short")]
    CutShort,
    #[error("archive is damaged at entry {0}: wrong checksum")]
    Checksum(u64),
    #[error("this is not a tar archive")]
    NotTar,
    #[error("archive goes on after its end; several archives in one file are not read")]
    Trailing,
    #[error("entry {entry:?} has a damaged header")]
    Damaged {
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("entry {entry:?}: {what}")]
    Unsupported { entry: String, what: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TarKind {
    File,
    Dir,
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Special(Special),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TarEntry {
    pub(super) path: Vec<u8>,
    pub(super) kind: TarKind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: i64,
    pub(super) mtime_nsec: u32,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What extra headers said of the entry that follows them.
#[derive(Debug, Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

pub(super) struct Tarball<R> {
    from: R,
    /// Of the current entry, not read yet: contents, then padding.
    left: u64,
    padding: u64,
    /// If the current entry has holes.
    parts: Option<Parts>,
    /// Records of every entry that does not say otherwise.
    global: Pax,
    seen: u64,
    is_layer: bool,
}

impl<R> std::fmt::Debug for Tarball<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tarball").field("entries", &self.seen).finish_non_exhaustive()
    }
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(from: R) -> Self {
        let global = Pax::new();
        Self { from, left: 0, padding: 0, parts: None, global, seen: 0, is_layer: false }
    }

    /// A digest tells that nothing is missing: such an archive may end anywhere between two entries,
    /// and what is behind its end does not count.
    pub(super) fn of_layer(from: R) -> Self {
        Self { is_layer: true, ..Self::new(from) }
    }

    pub(super) fn source(&self) -> &R {
        &self.from
    }

    pub(super) fn source_mut(&mut self) -> &mut R {
        &mut self.from
    }

    /// The next entry; what is left of the one before is skipped. After the last one everything
    /// behind the archive's end has been read too, so a compressed stream has been checked.
    pub(super) fn next(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut extra = Extra::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if extra.path.is_some() || extra.link.is_some() || !extra.pax.is_empty() {
                    Err(TarError::CutShort)
                } else {
                    Ok(None)
                };
            };
            self.seen += 1;
            let name = shown(extra.path.as_deref().unwrap_or(&header.path_bytes()));
            let damaged = |source| TarError::Damaged { entry: name.clone(), source };
            let size = header.entry_size().map_err(damaged)?;
            match header.entry_type() {
                EntryType::GNULongName => extra.path = Some(self.long(size, &name)?),
                EntryType::GNULongLink => extra.link = Some(self.long(size, &name)?),
                EntryType::XHeader => {
                    let records = self.small(size, &name)?;
                    extra.pax = pax(&records).ok_or_else(|| TarError::Unsupported {
                        entry: name.clone(),
                        what: "its PAX records are damaged".into(),
                    })?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.small(size, &name)?;
                    let records = pax(&records).ok_or_else(|| TarError::Unsupported {
                        entry: name.clone(),
                        what: "its PAX records are damaged".into(),
                    })?;
                    self.global.extend(records);
                    let bytes = self.global.iter().map(|(key, value)| key.len() + value.len());
                    if bytes.sum::<usize>() > MAX_GLOBAL {
                        return Err(TarError::Unsupported {
                            entry: name,
                            what: "PAX records for the whole archive take more than 1 MiB".into(),
                        });
                    }
                }
                _ => return self.entry(&header, extra).map(Some),
            }
        }
    }

    /// The current entry's contents.
    pub(super) fn contents(&mut self) -> impl Read + '_ {
        Contents { tar: self }
    }

    fn entry(&mut self, header: &Header, extra: Extra) -> Result<TarEntry, TarError> {
        let Extra { path, link, mut pax } = extra;
        for (key, value) in &self.global {
            pax.entry(key.clone()).or_insert_with(|| value.clone());
        }
        // An empty value takes back what was said for the whole archive.
        pax.retain(|key, value| !value.is_empty() || key.starts_with(b"SCHILY.xattr."));
        if let Some(name) = pax.remove(&b"GNU.sparse.name"[..]) {
            pax.insert(b"path".to_vec(), name);
        }
        let path = pax.remove(&b"path"[..]).or(path).unwrap_or_else(|| header.path_bytes().into());
        let name = shown(&path);
        let unsupported =
            |what: &str| TarError::Unsupported { entry: name.clone(), what: what.to_owned() };
        let damaged = |source| TarError::Damaged { entry: name.clone(), source };
        let number = |key: &[u8]| -> Result<Option<u64>, TarError> {
            let Some(text) = pax.get(key) else { return Ok(None) };
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| unsupported("its PAX records are damaged"))
        };
        let size = match number(b"size")? {
            Some(size) => size,
            None => header.entry_size().map_err(damaged)?,
        };
        let uid = number(b"uid")?
            .map_or_else(|| blank(&header.as_old().uid, header.uid()), Ok)
            .map_err(damaged)?;
        let gid = number(b"gid")?
            .map_or_else(|| blank(&header.as_old().gid, header.gid()), Ok)
            .map_err(damaged)?;
        let (mtime, mtime_nsec) = match pax.get(&b"mtime"[..]) {
            Some(text) => seconds(text).ok_or_else(|| unsupported("its time is damaged"))?,
            // Archives of old dates may hold what is no number; the epoch does then. Dates before
            // it are negative, in the binary form of numbers.
            None => (header.mtime().unwrap_or(0).cast_signed(), 0),
        };
        let link = pax
            .remove(&b"linkpath"[..])
            .or(link)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = || link.clone().ok_or_else(|| unsupported("it is a link to nothing"));
        let device = || -> Result<(u32, u32), TarError> {
            let missing = || unsupported("it is a device without numbers");
            let major = header.device_major().map_err(damaged)?.ok_or_else(missing)?;
            Ok((major, header.device_minor().map_err(damaged)?.ok_or_else(missing)?))
        };
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if !path.ends_with(b"/") => TarKind::File,
            // Before ustar a directory was known by its slash.
            EntryType::Regular | EntryType::Directory => TarKind::Dir,
            EntryType::Link => TarKind::HardLink(link()?),
            EntryType::Symlink => TarKind::Symlink(link()?),
            EntryType::Char => {
                device().map(|(major, minor)| TarKind::Special(Special::Char { major, minor }))?
            }
            EntryType::Block => {
                device().map(|(major, minor)| TarKind::Special(Special::Block { major, minor }))?
            }
            EntryType::Fifo => TarKind::Special(Special::Fifo),
            EntryType::GNUSparse => TarKind::File,
            other => {
                let byte = char::from(other.as_byte());
                return Err(unsupported(&format!("it has the unknown type {byte:?}")));
            }
        };
        let xattrs = pax
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix(b"SCHILY.xattr.")?;
                Some((plain(name), value.clone()))
            })
            .collect();
        // PAX lets links have contents too; they are skipped.
        self.left = size;
        self.padding = size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX) - size;
        let is_file = kind == TarKind::File;
        let parts = if is_file { self.parts_of(header, &pax) } else { Ok(None) };
        self.parts = parts.map_err(|()| unsupported("where its holes lie is damaged"))?;
        let size = self.parts.as_ref().map_or(size, Parts::size);
        let mode = header.mode().map_err(damaged)?;
        Ok(TarEntry { path, kind, size, mode, uid, gid, mtime, mtime_nsec, xattrs })
    }

    /// Of a file with holes; its map is read, if that comes first.
    fn parts_of(&mut self, header: &Header, pax: &Pax) -> Result<Option<Parts>, ()> {
        let mut block = |into: &mut [u8; BLOCK], counts: bool| {
            if counts && self.left < BLOCK as u64 {
                return false;
            }
            self.left -= if counts { BLOCK as u64 } else { 0 };
            self.block(into).unwrap_or(false)
        };
        let is = |key: &[u8], wanted: &[u8]| pax.get(key).is_some_and(|value| value == wanted);
        let (list, size) = if header.entry_type() == EntryType::GNUSparse {
            let header = header.as_gnu().ok_or(())?;
            sparse::in_header(header, |into| block(into, false)).ok_or(())?
        } else if is(b"GNU.sparse.major", b"1") && is(b"GNU.sparse.minor", b"0") {
            sparse::in_contents(pax, |into| block(into, true)).ok_or(())?
        } else if pax.contains_key(&b"GNU.sparse.size"[..]) {
            sparse::in_records(pax).ok_or(())?
        } else if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(());
        } else {
            return Ok(None);
        };
        Parts::new(list, size, self.left).ok_or(()).map(Some)
    }

    /// `None` at the end mark, which is two empty blocks; one and then nothing is let pass.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            if self.is_layer {
                return Ok(None);
            }
            return Err(if self.seen == 0 { TarError::NotTar } else { TarError::CutShort });
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.drain()?;
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
        match header.cksum() {
            Ok(wanted) if wanted == sum - field + 8 * 32 => Ok(Some(header)),
            _ if self.seen == 0 => Err(TarError::NotTar),
            _ => Err(TarError::Checksum(self.seen + 1)),
        }
    }

    /// Reads to the very end, which must be empty.
    fn drain(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 64 * BLOCK];
        loop {
            match self.from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) if !self.is_layer && buffer[..n].iter().any(|byte| *byte != 0) => {
                    return Err(TarError::Trailing);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
    }

    /// Whether there was a block; the end amidst one is an error.
    fn block(&mut self, into: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut done = 0;
        while done < BLOCK {
            match self.from.read(&mut into[done..]) {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) if self.seen == 0 => return Err(TarError::NotTar),
                Ok(0) => return Err(TarError::CutShort),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        Ok(true)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let left = self.left.saturating_add(self.padding);
        (self.left, self.padding, self.parts) = (0, 0, None);
        let skipped = io::copy(&mut self.from.by_ref().take(left), &mut io::sink());
        if skipped.map_err(read_error)? < left { Err(TarError::CutShort) } else { Ok(()) }
    }

    fn long(&mut self, size: u64, name: &str) -> Result<Vec<u8>, TarError> {
        let mut text = self.small(size, name)?;
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn small(&mut self, size: u64, name: &str) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTRA {
            return Err(TarError::Unsupported {
                entry: name.to_owned(),
                what: "its extra header is larger than 1 MiB".into(),
            });
        }
        let mut bytes = Vec::new();
        self.from.by_ref().take(size).read_to_end(&mut bytes).map_err(read_error)?;
        if (bytes.len() as u64) < size {
            return Err(TarError::CutShort);
        }
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(bytes)
    }
}

struct Contents<'a, R> {
    tar: &'a mut Tarball<R>,
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.tar.parts.take() {
            None => self.stored(into),
            Some(mut parts) => {
                let read = parts.read(into, |into| self.stored(into));
                self.tar.parts = Some(parts);
                read
            }
        }
    }
}

impl<R: Read> Contents<'_, R> {
    fn stored(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.tar.left).map_or(into.len(), |left| left.min(into.len()));
        // Not passed on: the xz decoder takes a read of nothing for the end of a block.
        if most == 0 {
            return Ok(0);
        }
        let n = self.tar.from.read(&mut into[..most])?;
        self.tar.left -= n as u64;
        Ok(n)
    }
}

/// A field that was left empty means zero.
fn blank(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| [0, b' '].contains(byte)) { Ok(0) } else { number }
}

/// The end of a compressed stream before its time comes as an error, not as an end.
/// The end of what is read, amidst an entry, is the archive's.
pub(super) fn read_error(error: io::Error) -> TarError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        TarError::CutShort
    } else {
        TarError::Read(error)
    }
}

/// Records `length key=value\n`.
fn pax(mut bytes: &[u8]) -> Option<Pax> {
    let mut records = Pax::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if !sparse::gather(&mut records, key, value) {
            records.insert(key.to_vec(), value.to_vec());
        }
        bytes = &bytes[len..];
    }
    Some(records)
}

/// Names of attributes as GNU tar writes them: what would end the key is written as a number.
fn plain(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut left = name;
    while let Some((first, rest)) = left.split_first() {
        let (byte, rest) = match rest {
            [b'3', b'D' | b'd', rest @ ..] if *first == b'%' => (b'=', rest),
            [b'2', b'5', rest @ ..] if *first == b'%' => (b'%', rest),
            _ => (*first, rest),
        };
        out.push(byte);
        left = rest;
    }
    out
}

/// `1700000000.123456789`, maybe negative.
fn seconds(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        return Some((whole - 1, 1_000_000_000 - nanos));
    }
    Some((whole, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
        let mut tar = Tarball::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = tar.next()? {
            let mut contents = Vec::new();
            tar.contents().read_to_end(&mut contents).unwrap();
            entries.push((entry, contents));
        }
        Ok(entries)
    }

    fn archive() -> tar::Builder<Vec<u8>> {
        tar::Builder::new(Vec::new())
    }

    fn header(size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_uid(1);
        header.set_gid(2);
        header
    }

    #[test]
    fn entries_and_long_names_are_read() {
        let mut tar = archive();
        let long = format!("{}/file", "directory/".repeat(30));
        tar.append_data(&mut header(5), &long, &b"hello"[..]).unwrap();
        let mut link = header(0);
        link.set_entry_type(EntryType::Symlink);
        tar.append_link(&mut link, "l", "t".repeat(200)).unwrap();
        let entries = all(&tar.into_inner().unwrap()).unwrap();
        assert_eq!(shown(&entries[0].0.path).replace("//", "/"), long.replace("//", "/"));
        assert_eq!(entries[0].1, b"hello");
        assert_eq!((entries[0].0.uid, entries[0].0.gid, entries[0].0.mode), (1, 2, 0o644));
        assert_eq!(entries[1].0.kind, TarKind::Symlink(vec![b't'; 200]));
    }

    #[test]
    fn pax_records_win() {
        let mut tar = archive();
        let records = [
            ("path", &b"real"[..]),
            ("mtime", b"1700000001.25"),
            ("uid", b"3000000000"),
            ("SCHILY.xattr.security.capability", b"\x01\0\n="),
        ];
        tar.append_pax_extensions(records).unwrap();
        tar.append_data(&mut header(2), "short", &b"ok"[..]).unwrap();
        let (entry, _) = all(&tar.into_inner().unwrap()).unwrap().remove(0);
        assert_eq!(entry.path, b"real");
        assert_eq!(
            (entry.mtime, entry.mtime_nsec, entry.uid),
            (1_700_000_001, 250_000_000, 3_000_000_000)
        );
        assert_eq!(entry.xattrs[&b"security.capability"[..]], b"\x01\0\n=");
    }

    #[test]
    fn archives_cut_anywhere_are_noticed() {
        let mut tar = archive();
        for name in ["a", "b"] {
            tar.append_data(&mut header(700), name, &[7; 700][..]).unwrap();
        }
        let whole = tar.into_inner().unwrap();
        assert_eq!(all(&whole).unwrap().len(), 2);
        for len in (0..whole.len() - 1024).step_by(100) {
            let mut tar = Tarball::new(&whole[..len]);
            let end = loop {
                match tar.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert!(matches!(end, Some(TarError::CutShort | TarError::NotTar)), "{len} {end:?}");
        }
    }

    #[test]
    fn damage_is_named() {
        let mut tar = archive();
        tar.append_data(&mut header(3), "a", &b"abc"[..]).unwrap();
        tar.append_data(&mut header(3), "b", &b"abc"[..]).unwrap();
        let whole = tar.into_inner().unwrap();
        let mut damaged = whole.clone();
        damaged[1024 + 10] ^= 1;
        assert!(matches!(all(&damaged), Err(TarError::Checksum(2))));
        let mut longer = whole.clone();
        longer.extend(&whole);
        assert!(matches!(all(&longer), Err(TarError::Trailing)));
        assert!(matches!(all(b"#!/bin/sh\n"), Err(TarError::NotTar)));
        assert!(matches!(all(&[b'x'; 4096]), Err(TarError::NotTar)));
        assert!(matches!(all(b""), Err(TarError::NotTar)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (kind, word) in [(EntryType::new(b'M'), "type 'M'"), (EntryType::new(b'V'), "type 'V'")]
        {
            let mut tar = archive();
            let mut header = header(0);
            header.set_entry_type(kind);
            header.set_path("odd").unwrap();
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
            let error = all(&tar.into_inner().unwrap()).unwrap_err().to_string();
            assert!(error.contains("odd") && error.contains(word), "{error}");
        }
        let mut tar = archive();
        let mut header = header(5 << 20);
        header.set_entry_type(EntryType::XHeader);
        header.set_path("pax").unwrap();
        header.set_cksum();
        tar.append(&header, &vec![b'0'; 5 << 20][..]).unwrap();
        assert!(matches!(all(&tar.into_inner().unwrap()), Err(TarError::Unsupported { .. })));
    }

    #[test]
    fn times_before_the_epoch() {
        assert_eq!(seconds(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(seconds(b"5"), Some((5, 0)));
        assert_eq!(seconds(b"5.x"), None);
    }
}
