//! Logs that a VMM appends to: kept below a cap, and read from their end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::host::files::TempFile;

/// Above this a log is cut.
pub(super) const CAP: u64 = 1 << 20;
const TAIL: u64 = 64 << 10;

/// Moves the last [`CAP`] bytes to `<log>.1` and empties the log. The writer has it open in append
/// mode and goes on at its new end; what it writes during the copy is copied too, except in the
/// instant before the cut.
pub(super) fn cap(log: &Path) -> io::Result<()> {
    let Some(file) = open_existing(log, true)? else { return Ok(()) };
    let mut end = file.metadata()?.len();
    if end <= CAP {
        return Ok(());
    }
    let old = older(log);
    let temp = TempFile::beside(&old);
    let copy = File::options().write(true).create_new(true).mode(0o600).open(temp.path())?;
    let mut from = end - CAP;
    let mut written = 0;
    while from < end {
        let bytes = read_at(&file, from, end)?;
        copy.write_all_at(&bytes, written)?;
        written += bytes.len() as u64;
        from = end;
        end = file.metadata()?.len().min(end + CAP);
    }
    file.set_len(0)?;
    temp.publish(&old)
}

/// The last lines, oldest first; also from before the last cut.
pub(super) fn tail(log: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut bytes = last_bytes(log, TAIL)?;
    if (bytes.len() as u64) < TAIL {
        let mut older = last_bytes(&older(log), TAIL - bytes.len() as u64)?;
        older.append(&mut bytes);
        bytes = older;
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<String> = text.lines().map(printable).filter(|line| !line.is_empty()).collect();
    Ok(all[all.len().saturating_sub(lines)..].to_vec())
}

/// What the log holds from byte `from` on, at most [`TAIL`] bytes, and where to go on. A log that
/// is shorter than that was cut, and is read from its new beginning.
pub(super) fn read_from(log: &Path, from: u64) -> io::Result<(Vec<u8>, u64)> {
    let Some(file) = open_existing(log, false)? else { return Ok((vec![], 0)) };
    let end = file.metadata()?.len();
    let from = if from > end { 0 } else { from };
    let bytes = read_at(&file, from, end.min(from.saturating_add(TAIL)))?;
    let next = from + bytes.len() as u64;
    Ok((bytes, next))
}

fn older(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

fn last_bytes(log: &Path, most: u64) -> io::Result<Vec<u8>> {
    let Some(file) = open_existing(log, false)? else { return Ok(vec![]) };
    let end = file.metadata()?.len();
    read_at(&file, end.saturating_sub(most), end)
}

fn open_existing(log: &Path, write: bool) -> io::Result<Option<File>> {
    const NOFOLLOW: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    match fs::OpenOptions::new().read(true).write(write).custom_flags(NOFOLLOW).open(log) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// May return less if the file shrinks meanwhile.
fn read_at(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], from + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// A console line as text: without escape sequences, and of each line only what the last carriage
/// return left on the screen. A guest must not be able to steer the terminal of who reads its log.
fn printable(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => text.push(' '),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // CSI: up to its final byte.
        Some('[') => {
            chars.find(|c| ('@'..='~').contains(c));
        }
        // OSC and its like: up to BEL or ESC \.
        Some(']' | 'P' | '_' | '^') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        // Character sets take one byte more.
        Some('(' | ')' | '#' | ' ') => {
            chars.next();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_small_log_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("serial.log");
        cap(&log).unwrap();
        fs::write(&log, "small").unwrap();
        cap(&log).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"small");
        assert!(!older(&log).exists());
    }

    #[test]
    fn a_large_log_is_cut_while_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("serial.log");
        let mut writer = File::options().create(true).append(true).open(&log).unwrap();
        writer.write_all(&vec![b'a'; 3 << 20]).unwrap();
        writer.write_all(b"\nlast before\n").unwrap();
        cap(&log).unwrap();
        writer.write_all(b"first after\n").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"first after\n");
        assert_eq!(fs::metadata(older(&log)).unwrap().len(), CAP);
        assert_eq!(tail(&log, 2).unwrap(), ["last before", "first after"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_tail_is_harmless_text() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("serial.log");
        let mut bytes = vec![b'x'; 200 << 10];
        bytes.extend(b"\n\x1b[2J\x1b[1;31mred\x1b[0m\tend\r\n\x1b]0;title\x07plain\n");
        bytes.extend(b"one\rtwo\n\xff\xfe\x00bytes\x1b(B\n\n\x1b[?25h\n");
        fs::write(&log, bytes).unwrap();
        assert_eq!(tail(&log, 4).unwrap(), ["red end", "plain", "two", "\u{fffd}\u{fffd}bytes"]);
        assert_eq!(tail(&log, 1).unwrap().len(), 1);
        assert!(tail(&dir.path().join("none"), 5).unwrap().is_empty());
    }

    #[test]
    fn a_log_is_read_on_and_from_its_beginning_after_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("serial.log");
        assert_eq!(read_from(&log, 7).unwrap(), (vec![], 0));
        fs::write(&log, "one two").unwrap();
        assert_eq!(read_from(&log, 0).unwrap(), (b"one two".to_vec(), 7));
        assert_eq!(read_from(&log, 4).unwrap(), (b"two".to_vec(), 7));
        assert_eq!(read_from(&log, 7).unwrap(), (vec![], 7));
        fs::write(&log, "new").unwrap();
        assert_eq!(read_from(&log, 7).unwrap(), (b"new".to_vec(), 3));
        fs::write(&log, vec![0; 100 << 10]).unwrap();
        assert_eq!(read_from(&log, 0).unwrap().1, TAIL);
    }

    #[test]
    fn a_linked_log_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, vec![b's'; 2 << 20]).unwrap();
        let log = dir.path().join("serial.log");
        std::os::unix::fs::symlink(&secret, &log).unwrap();
        assert!(cap(&log).is_err());
        assert!(tail(&log, 1).is_err());
        assert_eq!(fs::metadata(&secret).unwrap().len(), 2 << 20);
    }
}
