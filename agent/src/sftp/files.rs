//! What a client has open: files and directories, by handles of our own making.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, ReadDir};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::packet::bad;

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;

/// Short of the descriptors that a process may have.
pub(super) const MAX_HANDLES: usize = 512;

#[derive(Debug)]
pub(super) enum Open {
    /// With whether what is written goes to its end wherever the client says.
    File(File, bool),
    Dir(PathBuf, ReadDir),
}

#[derive(Debug, Default)]
pub(super) struct Files {
    open: HashMap<u32, Open>,
    last: u32,
}

impl Files {
    /// The name that the client is to call it by.
    pub(super) fn add(&mut self, open: Open) -> io::Result<[u8; 4]> {
        if self.open.len() >= MAX_HANDLES {
            return Err(nix::errno::Errno::EMFILE.into());
        }
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, open);
        Ok(self.last.to_be_bytes())
    }

    pub(super) fn get(&mut self, handle: &[u8]) -> io::Result<&mut Open> {
        self.open.get_mut(&number(handle)?).ok_or_else(bad_handle)
    }

    pub(super) fn file(&mut self, handle: &[u8]) -> io::Result<(&File, bool)> {
        match self.get(handle)? {
            Open::File(file, append) => Ok((file, *append)),
            Open::Dir(..) => Err(bad_handle()),
        }
    }

    pub(super) fn close(&mut self, handle: &[u8]) -> io::Result<()> {
        self.open.remove(&number(handle)?).map(drop).ok_or_else(bad_handle)
    }
}

fn number(handle: &[u8]) -> io::Result<u32> {
    handle.try_into().map(u32::from_be_bytes).map_err(|_| bad_handle())
}

fn bad_handle() -> io::Error {
    nix::errno::Errno::EBADF.into()
}

pub(super) fn open(path: &Path, flags: u32, mode: u32) -> io::Result<Open> {
    let has = |flag| flags & flag != 0;
    let mut options = OpenOptions::new();
    options.read(has(READ)).write(has(WRITE)).append(has(APPEND)).mode(mode);
    // A pipe that nobody reads must not hold the client up.
    options.custom_flags(nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK);
    if has(CREATE) && has(EXCLUSIVE) {
        options.create_new(true);
    } else {
        options.create(has(CREATE)).truncate(has(TRUNCATE) && !has(APPEND));
    }
    if !has(READ) && !has(WRITE) && !has(APPEND) {
        return Err(bad());
    }
    Ok(Open::File(options.open(path)?, has(APPEND)))
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if filled == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(filled)
}
