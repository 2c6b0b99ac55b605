//! A file system becomes a layer: one archive, the same bytes each time. Blocking.
//!
//! Entries come in the order of a walk, so a directory comes before what it holds and the first name
//! of a file before its others. What ustar cannot say is said in PAX records; names that are no text
//! in the way of GNU tar.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::host::image::ext4::read::{Content, Found, Volume};
use crate::host::image::ext4::{Special, shown};
use crate::host::image::import::{ImportError, Watch};

const BLOCK: usize = 512;
const NAME: usize = 100;

/// `watch` counts what is read.
pub(in crate::host::image) fn write_layer(
    volume: &Volume,
    out: &mut dyn Write,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    let mut names = HashMap::<u32, Vec<u8>>::new();
    let mut count = 0;
    volume.walk(&[], &mut |found| {
        watch.going_on()?;
        let entry = shown(&found.path);
        let failed = |source| ImportError::Write { entry: entry.clone(), source };
        let first = found.is_linked.then(|| names.get(&found.file)).flatten().cloned();
        if found.is_linked && first.is_none() {
            names.insert(found.file, found.path.clone());
        }
        let bytes = put(found, first.as_deref(), out);
        count += 1;
        watch.count(bytes.map_err(failed)?, count);
        Ok::<_, ImportError>(true)
    })?;
    out.write_all(&[0; 2 * BLOCK])
        .map_err(|source| ImportError::Write { entry: "its end".to_owned(), source })
}

/// How many bytes of contents that were.
fn put(found: Found, first: Option<&[u8]>, out: &mut dyn Write) -> io::Result<u64> {
    let Found { mut path, meta, content, .. } = found;
    let mut header = Header::new_gnu();
    header.set_mode(u32::from(meta.mode));
    header.set_uid(u64::from(meta.uid));
    header.set_gid(u64::from(meta.gid));
    // What is before 1970, and parts of seconds, are said in words.
    header.set_mtime(u64::try_from(meta.mtime).unwrap_or(0));
    header.set_size(0);
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = vec![];
    if meta.mtime < 0 || meta.mtime_nsec > 0 {
        records.push((b"mtime".to_vec(), time(meta.mtime, meta.mtime_nsec).into_bytes()));
    }
    let mut link = None;
    let mut body = None;
    match (first, content) {
        (Some(first), _) => {
            header.set_entry_type(EntryType::Link);
            link = Some(first.to_vec());
        }
        (None, Content::Dir) => {
            header.set_entry_type(EntryType::Directory);
            path.extend(if path.is_empty() { &b"./"[..] } else { b"/" });
        }
        (None, Content::File { len, contents }) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(len);
            body = Some((len, contents));
        }
        (None, Content::Symlink(target)) => {
            header.set_entry_type(EntryType::Symlink);
            link = Some(target);
        }
        // Archives know none, and nobody listens on one that comes out of an image.
        (None, Content::Special(Special::Socket)) => return Ok(0),
        (None, Content::Special(special)) => put_special(&mut header, special)?,
    }
    if first.is_none() {
        for (name, value) in meta.xattrs {
            records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value));
        }
    }
    put_name(&path, b"path", b'L', |header| &mut header.name, &mut header, &mut records, out)?;
    if let Some(link) = link {
        let field: Field = |header| &mut header.linkname;
        put_name(&link, b"linkpath", b'K', field, &mut header, &mut records, out)?;
    }
    put_records(&records, out)?;
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    let Some((len, contents)) = body else { return Ok(0) };
    let copied = io::copy(&mut contents.take(len), out)?;
    if copied < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    pad(len, out)?;
    Ok(len)
}

fn put_special(header: &mut Header, special: Special) -> io::Result<()> {
    let (kind, numbers) = match special {
        Special::Char { major, minor } => (EntryType::Char, Some((major, minor))),
        Special::Block { major, minor } => (EntryType::Block, Some((major, minor))),
        Special::Fifo | Special::Socket => (EntryType::Fifo, None),
    };
    header.set_entry_type(kind);
    if let Some((major, minor)) = numbers {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    Ok(())
}

type Field = fn(&mut tar::GnuHeader) -> &mut [u8; NAME];

/// A name that fits its field, or is said before it.
fn put_name(
    name: &[u8],
    key: &[u8],
    long: u8,
    field: Field,
    header: &mut Header,
    records: &mut Vec<(Vec<u8>, Vec<u8>)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let fits = name.len().min(NAME);
    if let Some(header) = header.as_gnu_mut() {
        field(header)[..fits].copy_from_slice(&name[..fits]);
    }
    if name.len() <= NAME {
        return Ok(());
    }
    if std::str::from_utf8(name).is_ok() {
        records.push((key.to_vec(), name.to_vec()));
        return Ok(());
    }
    let text = [name, b"\0"].concat();
    put_extra(b"././@LongLink", long, &text, out)
}

fn put_records(records: &[(Vec<u8>, Vec<u8>)], out: &mut dyn Write) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut text = vec![];
    for (key, value) in records {
        // A space, a `=`, a line feed; and the length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        text.extend(format!("{length} ").bytes());
        text.extend([key, &b"="[..], value, b"\n"].concat());
    }
    put_extra(b"././@PaxHeader", b'x', &text, out)
}

fn put_extra(name: &[u8], kind: u8, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut header = Header::new_gnu();
    if let Some(header) = header.as_gnu_mut() {
        header.name[..name.len()].copy_from_slice(name);
    }
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(text.len() as u64);
    header.set_entry_type(EntryType::new(kind));
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    out.write_all(text)?;
    pad(text.len() as u64, out)
}

fn pad(len: u64, out: &mut dyn Write) -> io::Result<()> {
    let over = usize::try_from(len % BLOCK as u64).unwrap_or(0);
    if over > 0 { out.write_all(&[0; BLOCK][over..]) } else { Ok(()) }
}

/// Seconds, with their parts; those before 1970 count away from it.
fn time(seconds: i64, nanos: u32) -> String {
    match (seconds < 0, nanos) {
        (_, 0) => seconds.to_string(),
        (false, nanos) => format!("{seconds}.{nanos:09}"),
        (true, nanos) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for (time_of, text) in [
            ((0, 0), "0"),
            ((5, 500_000_000), "5.500000000"),
            ((-5, 0), "-5"),
            ((-2, 500_000_000), "-1.500000000"),
            ((-1, 999_999_999), "-0.000000001"),
        ] {
            assert_eq!(time(time_of.0, time_of.1), text);
        }
    }
}
