//! One request, one reply.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::time::{ClockId, clock_gettime};

use super::attributes::{self, Attributes};
use super::extended::{self, EXTENSIONS};
use super::files::{self, Files, Open};
use super::listing::Names;
use super::packet::{Fields, MAX_PACKET, Reply, bad};

const VERSION: u32 = 3;
/// Of a packet, what is left for data beside its other fields.
pub(super) const MAX_DATA: usize = MAX_PACKET - 1024;
/// Entries in one reply to a reading of a directory.
const MAX_ENTRIES: usize = 128;
const DEFAULT_FILE: u32 = 0o666;
const DEFAULT_DIR: u32 = 0o777;

/// The protocol's numbers.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED: u8 = 200;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

const OK: u32 = 0;
const END: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

/// What an answer is, if it is not a refusal.
pub(super) enum Answer {
    Done,
    End,
    Handle([u8; 4]),
    Data(Vec<u8>),
    Attributes(fs::Metadata),
    /// One name without attributes.
    Name(PathBuf),
    Entries(Vec<(Vec<u8>, Vec<u8>, fs::Metadata)>),
    Extended(Vec<u64>),
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) files: Files,
    names: Names,
}

impl Server {
    /// An error is a client that speaks no sftp.
    pub(super) fn answer(&mut self, packet: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut fields = Fields(packet);
        let asked = fields.byte()?;
        if asked == kind::INIT {
            let mut reply = Reply::new(out, kind::VERSION);
            reply.u32(VERSION);
            for (name, version) in EXTENSIONS {
                reply.string(name.as_bytes()).string(version.as_bytes());
            }
            return Ok(());
        }
        let id = fields.u32()?;
        match self.act(asked, fields) {
            Ok(answer) => write(answer, id, out),
            Err(error) => status(out, id, code(&error), &message(&error)),
        }
        Ok(())
    }

    fn act(&mut self, asked: u8, mut fields: Fields<'_>) -> io::Result<Answer> {
        match asked {
            kind::OPEN => {
                let (path, flags) = (fields.path()?, fields.u32()?);
                let mode = Attributes::read(&mut fields)?.mode.unwrap_or(DEFAULT_FILE);
                self.files.add(files::open(path, flags, mode)?).map(Answer::Handle)
            }
            kind::CLOSE => self.files.close(fields.string()?).map(|()| Answer::Done),
            kind::READ => self.read(fields),
            kind::WRITE => {
                let (handle, at, data) = (fields.string()?, fields.u64()?, fields.string()?);
                let (mut file, append) = self.files.file(handle)?;
                match append {
                    true => io::Write::write_all(&mut file, data)?,
                    false => file.write_all_at(data, at)?,
                }
                Ok(Answer::Done)
            }
            kind::STAT => fs::metadata(fields.path()?).map(Answer::Attributes),
            kind::LSTAT => fs::symlink_metadata(fields.path()?).map(Answer::Attributes),
            kind::FSTAT => match self.files.get(fields.string()?)? {
                Open::File(file, _) => file.metadata().map(Answer::Attributes),
                Open::Dir(path, _) => fs::metadata(path).map(Answer::Attributes),
            },
            kind::SETSTAT => {
                let path = fields.path()?;
                Attributes::read(&mut fields)?.set(path).map(|()| Answer::Done)
            }
            kind::FSETSTAT => {
                let open = self.files.get(fields.string()?)?;
                let attributes = Attributes::read(&mut fields)?;
                match open {
                    Open::File(file, _) => attributes.set_open(file)?,
                    Open::Dir(path, _) => attributes.set(path)?,
                }
                Ok(Answer::Done)
            }
            kind::OPENDIR => {
                let path = fields.path()?;
                let dir = fs::read_dir(path)?;
                self.files.add(Open::Dir(path.to_owned(), dir)).map(Answer::Handle)
            }
            kind::READDIR => self.entries(fields.string()?),
            kind::REMOVE => fs::remove_file(fields.path()?).map(|()| Answer::Done),
            kind::MKDIR => {
                let path = fields.path()?;
                let mode = Attributes::read(&mut fields)?.mode.unwrap_or(DEFAULT_DIR);
                DirBuilder::new().mode(mode).create(path).map(|()| Answer::Done)
            }
            kind::RMDIR => fs::remove_dir(fields.path()?).map(|()| Answer::Done),
            kind::REALPATH => real_path(fields.path()?).map(Answer::Name),
            kind::RENAME => rename_new(fields.path()?, fields.path()?).map(|()| Answer::Done),
            kind::READLINK => fs::read_link(fields.path()?).map(Answer::Name),
            kind::SYMLINK => {
                // In OpenSSH's order, which all clients have come to use.
                symlink(fields.path()?, fields.path()?).map(|()| Answer::Done)
            }
            kind::EXTENDED => extended::act(self, fields),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn read(&mut self, mut fields: Fields<'_>) -> io::Result<Answer> {
        let (handle, at, length) = (fields.string()?, fields.u64()?, fields.u32()?);
        let length = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
        let (file, _) = self.files.file(handle)?;
        let mut data = vec![0; length];
        let read = files::read_at(file, &mut data, at)?;
        data.truncate(read);
        Ok(if read == 0 { Answer::End } else { Answer::Data(data) })
    }

    fn entries(&mut self, handle: &[u8]) -> io::Result<Answer> {
        let Open::Dir(path, dir) = self.files.get(handle)? else { return Err(Errno::EBADF.into()) };
        let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| now.tv_sec());
        let mut entries = vec![];
        // The two that the library leaves out are left out here too: no client needs them.
        for entry in dir.by_ref().take(MAX_ENTRIES) {
            let name = entry?.file_name();
            // One that is gone by now is not listed.
            if let Ok(meta) = fs::symlink_metadata(path.join(&name)) {
                let line = self.names.line(&meta, now, name.as_bytes());
                entries.push((name.as_bytes().to_vec(), line, meta));
            }
        }
        Ok(if entries.is_empty() { Answer::End } else { Answer::Entries(entries) })
    }
}

/// The last part need not be there.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (parent, name) = (path.parent(), path.file_name());
            let (Some(parent), Some(name)) = (parent, name) else { return Err(error) };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        real => real,
    }
}

/// Version 3 never replaces; the extension does.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system that cannot promise it: what is there is looked at, at least.
        Err(Errno::EINVAL) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::EINVAL) => Err(Errno::EEXIST.into()),
        renamed => Ok(renamed?),
    }
}

fn write(answer: Answer, id: u32, out: &mut Vec<u8>) {
    match answer {
        Answer::Done => status(out, id, OK, "Success"),
        Answer::End => status(out, id, END, "End of file"),
        Answer::Handle(handle) => drop(Reply::new(out, kind::HANDLE).u32(id).string(&handle)),
        Answer::Data(data) => drop(Reply::new(out, kind::DATA).u32(id).string(&data)),
        Answer::Attributes(meta) => {
            let mut reply = Reply::new(out, kind::ATTRS);
            reply.u32(id);
            attributes::write(&mut reply, &meta);
        }
        Answer::Name(path) => {
            let name = path.as_os_str().as_bytes();
            let mut reply = Reply::new(out, kind::NAME);
            reply.u32(id).u32(1).string(name).string(name);
            attributes::write_none(&mut reply);
        }
        Answer::Entries(entries) => {
            let mut reply = Reply::new(out, kind::NAME);
            reply.u32(id).u32(u32::try_from(entries.len()).unwrap_or(0));
            for (name, line, meta) in &entries {
                reply.string(name).string(line);
                attributes::write(&mut reply, meta);
            }
        }
        Answer::Extended(values) => {
            let mut reply = Reply::new(out, kind::EXTENDED_REPLY);
            reply.u32(id);
            for value in values {
                reply.u64(value);
            }
        }
    }
}

fn status(out: &mut Vec<u8>, id: u32, code: u32, text: &str) {
    Reply::new(out, kind::STATUS).u32(id).u32(code).string(text.as_bytes()).string(b"");
}

fn code(error: &io::Error) -> u32 {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotFound => NO_SUCH_FILE,
        K::PermissionDenied => DENIED,
        K::Unsupported => UNSUPPORTED,
        K::InvalidData if error.to_string() == bad().to_string() => BAD_MESSAGE,
        _ => FAILURE,
    }
}

fn message(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
