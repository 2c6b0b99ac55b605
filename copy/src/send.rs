//! The sender: tells what there is, and answers what the receiver asks, in order.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::entry::Kind;
use crate::error::{At, CopyError};
use crate::frame::{FrameKind, HEADER, Listener, MAX_PAYLOAD, Sender};
use crate::list::{Item, List};
use crate::write::digest;
use crate::{Progress, Watch};

const BLOCK: u64 = 512;

/// Ends when the receiver has it all. Answers with what was left out: devices, pipes, sockets.
pub fn send(
    paths: &[PathBuf],
    to: impl Write,
    answers: impl Read,
    watch: Watch<'_>,
) -> Result<(Progress, Vec<PathBuf>), CopyError> {
    send_list(List::of(paths), to, answers, watch)
}

/// The same of things that have places of their own.
pub fn send_items(
    items: &[Item],
    to: impl Write,
    answers: impl Read,
    watch: Watch<'_>,
) -> Result<(Progress, Vec<PathBuf>), CopyError> {
    send_list(List::of_items(items), to, answers, watch)
}

fn send_list(
    list: Result<List, CopyError>,
    to: impl Write,
    answers: impl Read,
    watch: Watch<'_>,
) -> Result<(Progress, Vec<PathBuf>), CopyError> {
    let (mut sender, mut listener) = (Sender::new(to), Listener::new(answers));
    let sent = list.and_then(|list| {
        let progress = run(&list, &mut sender, &mut listener, watch)?;
        Ok((progress, list.skipped))
    });
    sent.map_err(|error| explain(error, &mut sender, &mut listener))
}

/// A receiver that gives up says why and leaves; what is noticed first is that it has left.
pub(crate) fn explain(
    error: CopyError,
    sender: &mut Sender<impl Write>,
    listener: &mut Listener<impl Read>,
) -> CopyError {
    match error {
        CopyError::Broken(_) => listener.last_words().unwrap_or(error),
        error => {
            sender.fail(&error);
            error
        }
    }
}

fn run(
    list: &List,
    sender: &mut Sender<impl Write>,
    listener: &mut Listener<impl Read>,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    for entry in &list.entries {
        sender.say(FrameKind::Entry, &entry.encode())?;
    }
    sender.say(FrameKind::ListEnd, &[])?;
    sender.flush()?;
    let progress = Progress { done: 0, total: list.total, kept: 0 };
    let mut answers = Answers { sender, progress, watch, buffer: vec![0; HEADER + MAX_PAYLOAD] };
    loop {
        match listener.next()? {
            (FrameKind::Want, length) => {
                let question = Question::of(&listener.payload(length)?)?;
                let entry = list.entries.get(question.index as usize);
                let Some(Kind::File { size: Some(size) }) = entry.map(|entry| &entry.kind) else {
                    return Err(CopyError::Nonsense("a question about no file"));
                };
                answers.file(&list.path(question.index), *size, &question)?;
            }
            (FrameKind::Done, _) => return Ok(answers.progress),
            _ => return Err(CopyError::Nonsense("no question")),
        }
    }
}

pub(crate) struct Question {
    pub(crate) index: u32,
    there: u64,
    digest: Vec<u8>,
}

impl Question {
    pub(crate) fn of(payload: &[u8]) -> Result<Self, CopyError> {
        let parts = payload.split_first_chunk::<4>().and_then(|(index, rest)| {
            rest.split_first_chunk::<8>().map(|(there, digest)| (index, there, digest))
        });
        let (index, there, digest) = parts.ok_or(CopyError::Nonsense("half a question"))?;
        let (index, there) = (u32::from_le_bytes(*index), u64::from_le_bytes(*there));
        Ok(Self { index, there, digest: digest.to_vec() })
    }
}

struct Answers<'a, W> {
    sender: &'a mut Sender<W>,
    progress: Progress,
    watch: Watch<'a>,
    buffer: Vec<u8>,
}

impl<W: Write> Answers<'_, W> {
    fn file(&mut self, path: &Path, size: u64, question: &Question) -> Result<(), CopyError> {
        let file = File::open(path).at("read", path)?;
        let meta = file.metadata().at("read", path)?;
        if meta.len() < size {
            return Err(CopyError::refused(path, "was cut while it was copied"));
        }
        let there = question.there;
        let same = there > 0
            && there <= size
            && digest(&file, there).at("read", path)?.as_slice() == question.digest;
        let from = if same { there } else { 0 };
        let begin = [question.index.to_le_bytes().as_slice(), &from.to_le_bytes()].concat();
        self.sender.say(FrameKind::Begin, &begin)?;
        self.progress.kept += from;
        self.advance(from);
        let sparse = meta.blocks().saturating_mul(BLOCK) < size;
        let mut at = from;
        while at < size {
            let (data, end) =
                if sparse { extent(&file, at, size) } else { Ok((at, size)) }.at("read", path)?;
            if data > at {
                self.sender.say(FrameKind::Hole, &(data - at).to_le_bytes())?;
                self.advance(data - at);
            }
            self.data(&file, path, data, end)?;
            at = end;
        }
        self.sender.say(FrameKind::End, &size.to_le_bytes())?;
        self.sender.flush()
    }

    fn data(&mut self, file: &File, path: &Path, from: u64, to: u64) -> Result<(), CopyError> {
        let mut at = from;
        while at < to {
            let room = usize::try_from(to - at).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD);
            let place = self.buffer.get_mut(HEADER..HEADER + room).unwrap_or_default();
            let read = read_at(file, place, at).at("read", path)?;
            if read == 0 {
                return Err(CopyError::refused(path, "was cut while it was copied"));
            }
            self.sender.data(self.buffer.get_mut(..HEADER + read).unwrap_or_default())?;
            at += read as u64;
            self.advance(read as u64);
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.progress.done += bytes;
        (self.watch)(self.progress);
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// The next data at or after `at`, from where to where; both the end if there is none.
fn extent(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let signed = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(Errno::EFBIG));
    let found = |found: i64| u64::try_from(found).unwrap_or(size).min(size);
    let data = match lseek(file, signed(at)?, Whence::SeekData) {
        Ok(data) => found(data),
        Err(Errno::ENXIO) => return Ok((size, size)),
        // A file system that knows no holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok((at, size)),
        Err(error) => return Err(error.into()),
    };
    Ok((data, found(lseek(file, signed(data)?, Whence::SeekHole)?)))
}
