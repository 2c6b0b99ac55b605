//! What a job wrote, in the order in which it came: records of a stream, a length and bytes, in files
//! that are numbered from 0 on. When one is full the next begins and the one before it goes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use banger_agent::contract::job::OUTPUT_BYTES;
use nix::poll::{PollTimeout, poll};

const HEADER: usize = 5;
/// Of one record.
pub(super) const CHUNK: usize = 32 << 10;
const FILE_BYTES: u64 = OUTPUT_BYTES / 2;
const LOOK_AGAIN: u8 = 100; // ms

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out = 0,
    Err = 1,
}

#[derive(Debug)]
pub(super) struct Output {
    dir: PathBuf,
    number: u32,
    file: File,
    length: u64,
    full: u64,
}

impl Output {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        Self::of(dir, FILE_BYTES)
    }

    fn of(dir: &Path, full: u64) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            number: 0,
            file: File::create(file(dir, 0))?,
            length: 0,
            full,
        })
    }

    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if self.length >= self.full {
            let next = File::create(file(&self.dir, self.number + 1))?;
            if let Some(before) = self.number.checked_sub(1) {
                drop(fs::remove_file(file(&self.dir, before)));
            }
            (self.file, self.length) = (next, 0);
            self.number += 1;
        }
        let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
        // One write, so that a reader sees whole records.
        let record = [&[stream as u8], &length[..], bytes].concat();
        self.length += record.len() as u64;
        self.file.write_all(&record)
    }
}

/// From the oldest that is kept to the end, or for as long as it `goes_on`.
pub(super) fn copy(
    dir: &Path,
    goes_on: impl Fn() -> bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    let Some(mut number) = numbers(dir)?.into_iter().min() else { return Ok(()) };
    let mut from = File::open(file(dir, number))?;
    let mut held = vec![];
    loop {
        // Looked at before the reading: what was written before the end is read after it.
        let more = goes_on();
        let next = numbers(dir)?.into_iter().filter(|other| *other > number).min();
        from.read_to_end(&mut held)?;
        let used = records(&held, out, err)?;
        held.drain(..used);
        match next {
            Some(next) => {
                (number, from) = (next, File::open(file(dir, next))?);
                held.clear();
            }
            None if more => {
                let _ = poll(&mut [], PollTimeout::from(LOOK_AGAIN));
            }
            None => return Ok(()),
        }
    }
}

/// Those that are whole; answers with their bytes.
fn records(bytes: &[u8], out: &mut dyn Write, err: &mut dyn Write) -> io::Result<usize> {
    let mut used = 0;
    while let Some([stream, a, b, c, d]) = bytes.get(used..).and_then(<[u8]>::first_chunk) {
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let start = used + HEADER;
        let Some(data) = bytes.get(start..start.saturating_add(length)) else { break };
        match *stream {
            0 => out.write_all(data)?,
            _ => err.write_all(data)?,
        }
        used = start + length;
    }
    out.flush()?;
    err.flush()?;
    Ok(used)
}

fn file(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("output.{number}"))
}

fn numbers(dir: &Path) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("output.")?.parse().ok();
    Ok(names.filter_map(number).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("banger-output-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn streams_stay_apart_and_the_end_of_too_much_is_kept() {
        let dir = dir("streams");
        let mut output = Output::of(&dir, 100).unwrap();
        let (mut out, mut err) = (vec![], vec![]);
        output.write(Stream::Out, b"one\n").unwrap();
        output.write(Stream::Err, b"oops\n").unwrap();
        output.write(Stream::Out, b"two\n").unwrap();
        copy(&dir, || false, &mut out, &mut err).unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"one\ntwo\n"[..], &b"oops\n"[..]));
        for number in 0..1000 {
            output.write(Stream::Out, format!("{number:03}\n").as_bytes()).unwrap();
        }
        let (mut out, mut err) = (vec![], vec![]);
        copy(&dir, || false, &mut out, &mut err).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("998\n999\n") && (40..100).contains(&text.len()), "{}", text.len());
        let lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "none is missing in between");
        assert_eq!(numbers(&dir).unwrap().len(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn who_follows_gets_what_was_written_last() {
        let dir = dir("follow");
        let output = Cell::new(Some(Output::of(&dir, 100).unwrap()));
        let left = Cell::new(3);
        let goes_on = || {
            left.set(left.get() - 1);
            let mut writes = output.take().unwrap();
            writes.write(Stream::Out, b"x").unwrap();
            output.set(Some(writes));
            left.get() > 0
        };
        let mut out = vec![];
        copy(&dir, goes_on, &mut out, &mut io::sink()).unwrap();
        assert_eq!(out, b"xxx");
        fs::remove_dir_all(&dir).unwrap();
    }
}
