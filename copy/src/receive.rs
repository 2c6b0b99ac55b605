//! The receiver: asks for what it lacks, and gives each file its name when all of it is there.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;

use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::SFlag;
use nix::unistd::{linkat, symlinkat};

use crate::entry::{Entry, Kind};
use crate::error::{At, CopyError};
use crate::frame::{FrameKind, Listener, Sender};
use crate::place::{self, Place};
use crate::write::{Digest, LARGE, Part, Whole, digest, open_plain, part_name};
use crate::{Progress, Watch};

/// Questions on their way. Small enough that they never fill a pipe while nobody reads it.
const AHEAD: usize = 64;
/// Whole files that wait for their names, which they get together.
const WAITING: usize = 256;
const WAITING_BYTES: u64 = 64 << 20;

/// How the receiving end is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// A file is on disk before it has its name, because the machine may end at any moment.
    pub durable: bool,
    /// What counts of modes. Programs of a stranger must not become somebody's here.
    pub modes: u32,
}

/// What a question is about.
enum Asked {
    /// The file itself is of the right size.
    Kept(u32, u64),
    Part(u32, Part, u64),
}

/// Ends when all is there.
pub fn receive(
    how: Receiver,
    to: &Path,
    from: impl Read,
    answers: impl Write,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    let (mut listener, mut sender) = (Listener::new(from), Sender::new(answers));
    let received = run(how, to, &mut listener, &mut sender, watch);
    match &received {
        Err(error) => sender.fail(error),
        Ok(_) => sender.say(FrameKind::Done, &[]).and_then(|()| sender.flush())?,
    }
    received
}

fn run(
    how: Receiver,
    to: &Path,
    listener: &mut Listener<impl Read>,
    sender: &mut Sender<impl Write>,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    let entries = entries(listener, how.modes)?;
    let mut place = Place::open(to, &entries)?;
    place.make_dirs(&entries)?;
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size } => size.unwrap_or(0),
        _ => 0,
    };
    let total = entries.iter().map(size).sum();
    let mut work = Work {
        how,
        entries: &entries,
        place,
        waiting: vec![],
        waiting_bytes: 0,
        progress: Progress { done: 0, total, kept: 0 },
        watch,
    };
    let done = work.files(listener, sender).and_then(|()| work.name_waiting());
    if done.is_err() {
        // Whole files without a name are of no use to anybody; the part of a broken one is.
        work.waiting.drain(..).for_each(|(_, whole)| whole.discard());
    }
    done?;
    work.links()?;
    work.place.finish_dirs(&entries)?;
    // The names too: who was told that all is there may rely on it.
    if how.durable && !entries.is_empty() {
        work.place.sync().at("sync", to)?;
    }
    Ok(work.progress)
}

fn entries(listener: &mut Listener<impl Read>, modes: u32) -> Result<Vec<Entry>, CopyError> {
    let mut entries = vec![];
    loop {
        match listener.next()? {
            (FrameKind::Entry, length) => {
                let index = u32::try_from(entries.len())
                    .map_err(|_| CopyError::Nonsense("more files than can be counted"))?;
                let mut entry = Entry::decode(&listener.payload(length)?, index)?;
                entry.mode &= modes;
                entries.push(entry);
            }
            (FrameKind::ListEnd, length) => {
                listener.payload(length)?;
                return Ok(entries);
            }
            _ => return Err(CopyError::Nonsense("no list")),
        }
    }
}

struct Work<'a> {
    how: Receiver,
    entries: &'a [Entry],
    place: Place,
    waiting: Vec<(u32, Whole)>,
    waiting_bytes: u64,
    progress: Progress,
    watch: Watch<'a>,
}

impl Work<'_> {
    fn files(
        &mut self,
        listener: &mut Listener<impl Read>,
        sender: &mut Sender<impl Write>,
    ) -> Result<(), CopyError> {
        let files = (0..).zip(self.entries);
        let mut files = files.filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
        let mut asked = VecDeque::new();
        let mut more = true;
        while more || !asked.is_empty() {
            while more && asked.len() < AHEAD {
                match files.next() {
                    Some((index, entry)) => asked.extend(self.ask(index, entry, sender)?),
                    None => more = false,
                }
            }
            sender.flush()?;
            if let Some(next) = asked.pop_front() {
                self.take(next, listener)?;
            }
        }
        Ok(())
    }

    /// `None`: there is nothing to ask.
    fn ask(
        &mut self,
        index: u32,
        entry: &Entry,
        sender: &mut Sender<impl Write>,
    ) -> Result<Option<Asked>, CopyError> {
        let Kind::File { size } = entry.kind else { return Ok(None) };
        let here = self.here(index, entry, size);
        let here = here.at("write", &self.place.path(self.entries, index))?;
        let (asked, digest) = match here {
            Here::Kept(length, digest) => (Asked::Kept(index, length), Some(digest)),
            Here::Part(part, Some((length, digest))) => {
                (Asked::Part(index, part, length), Some(digest))
            }
            Here::Part(part, None) => (Asked::Part(index, part, 0), None),
        };
        if size == Some(0) {
            if let Asked::Part(_, mut part, _) = asked {
                part.begin(0).at("write", &self.place.path(self.entries, index))?;
                self.finish(index, part)?;
            }
            return Ok(None);
        }
        let length = match &asked {
            Asked::Kept(_, length) | Asked::Part(_, _, length) => *length,
        };
        let mut question = [index.to_le_bytes().as_slice(), &length.to_le_bytes()].concat();
        question.extend(digest.iter().flatten());
        sender.say(FrameKind::Want, &question)?;
        Ok(Some(asked))
    }

    fn here(&mut self, index: u32, entry: &Entry, size: Option<u64>) -> io::Result<Here> {
        let dir = self.place.dir(self.entries, entry.parent)?;
        debug_assert!(self.entries.get(index as usize).is_some());
        let name = self.place.name(entry);
        if let Some(stat) = place::look(&*dir, name)? {
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR {
                return Err(nix::errno::Errno::EISDIR.into());
            }
            let length = u64::try_from(stat.st_size).unwrap_or(0);
            if kind == SFlag::S_IFREG && length > 0 && size == Some(length) {
                // One that cannot be read is written anew.
                if let Ok(file) = open_plain(&*dir, name)
                    && let Ok(digest) = digest(&file, length)
                {
                    return Ok(Here::Kept(length, digest));
                }
            }
        }
        let mut part = Part::open(&dir, name)?;
        let there = part.there(size)?;
        Ok(Here::Part(part, there))
    }

    /// The answer to a question, to its end.
    fn take(&mut self, asked: Asked, listener: &mut Listener<impl Read>) -> Result<(), CopyError> {
        let (FrameKind::Begin, length) = listener.next()? else {
            return Err(CopyError::Nonsense("no answer to a question"));
        };
        let [a, b, c, d, from @ ..] = listener.numbers::<12>(length)?;
        let (index, from) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(from));
        let (asked_index, length) = match &asked {
            Asked::Kept(index, length) | Asked::Part(index, _, length) => (*index, *length),
        };
        if index != asked_index || (from != 0 && from != length) {
            return Err(CopyError::Nonsense("the answer to another question"));
        }
        self.progress.done += from;
        self.progress.kept += from;
        let mut part = match asked {
            Asked::Part(_, part, _) => part,
            Asked::Kept(..) if from == length => return self.keep(index, listener),
            Asked::Kept(..) => self.new_part(index)?,
        };
        match self.fill(&mut part, index, from, listener) {
            Ok(()) => self.finish(index, part),
            Err(error) => {
                // A broken connection leaves what came for the next time.
                if !matches!(error, CopyError::Broken(_)) {
                    part.discard();
                }
                Err(error)
            }
        }
    }

    fn keep(&mut self, index: u32, listener: &mut Listener<impl Read>) -> Result<(), CopyError> {
        let (FrameKind::End, length) = listener.next()? else {
            return Err(CopyError::Nonsense("more of what is whole"));
        };
        listener.payload(length)?;
        let path = self.place.path(self.entries, index);
        let Some(entry) = self.entries.get(index as usize) else { return Ok(()) };
        let dir = self.place.dir(self.entries, entry.parent).at("open", &path)?;
        place::set(&*dir, self.place.name(entry), entry).at("set rights of", &path)?;
        (self.watch)(self.progress);
        Ok(())
    }

    fn new_part(&mut self, index: u32) -> Result<Part, CopyError> {
        let part = match self.entries.get(index as usize) {
            Some(entry) => self
                .place
                .dir(self.entries, entry.parent)
                .and_then(|dir| Part::open(&dir, self.place.name(entry))),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        part.at("write", &self.place.path(self.entries, index))
    }

    fn fill(
        &mut self,
        part: &mut Part,
        index: u32,
        from: u64,
        listener: &mut Listener<impl Read>,
    ) -> Result<(), CopyError> {
        let path = self.place.path(self.entries, index);
        part.begin(from).at("write", &path)?;
        loop {
            match listener.next()? {
                (FrameKind::Data, length) => {
                    listener.pieces(length, |piece| part.write(piece).at("write", &path))?;
                    self.progress.done += length as u64;
                    if self.how.durable {
                        part.write_back();
                    }
                }
                (FrameKind::Hole, length) => {
                    let hole = u64::from_le_bytes(listener.numbers(length)?);
                    part.skip(hole).at("write", &path)?;
                    self.progress.done = self.progress.done.saturating_add(hole);
                }
                (FrameKind::End, length) => {
                    let size = u64::from_le_bytes(listener.numbers(length)?);
                    if size != part.written() {
                        return Err(CopyError::Nonsense("a file of another length"));
                    }
                    return Ok(());
                }
                _ => return Err(CopyError::Nonsense("something else in a file")),
            }
            (self.watch)(self.progress);
        }
    }

    fn finish(&mut self, index: u32, part: Part) -> Result<(), CopyError> {
        let Some(entry) = self.entries.get(index as usize) else { return Ok(()) };
        let size = part.written();
        let whole = part.whole(self.place.name(entry), entry, self.how.durable);
        let whole = whole.at("write", &self.place.path(self.entries, index))?;
        self.waiting.push((index, whole));
        // A large file is on disk by itself.
        self.waiting_bytes += if size < LARGE { size } else { 0 };
        let full = self.waiting.len() >= WAITING || self.waiting_bytes >= WAITING_BYTES;
        if full || !self.how.durable { self.name_waiting() } else { Ok(()) }
    }

    fn name_waiting(&mut self) -> Result<(), CopyError> {
        if self.how.durable && self.waiting.len() > usize::from(self.waiting_bytes == 0) {
            self.place.sync().at("sync", &self.place.path(self.entries, 0))?;
        }
        self.waiting_bytes = 0;
        for (index, whole) in self.waiting.drain(..) {
            whole.name().at("write", &self.place.path(self.entries, index))?;
        }
        Ok(())
    }

    /// Links of both kinds, when what they lead to is there.
    fn links(&mut self) -> Result<(), CopyError> {
        for (index, entry) in (0..).zip(self.entries) {
            let linked = match &entry.kind {
                Kind::Symlink { target } => self.symlink(entry, target),
                Kind::HardLink { to } => self.hard_link(entry, *to),
                Kind::Dir | Kind::Way | Kind::File { .. } => continue,
            };
            linked.at("link", &self.place.path(self.entries, index))?;
        }
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, target: &[u8]) -> io::Result<()> {
        let dir = self.place.dir(self.entries, entry.parent)?;
        let name = self.place.name(entry);
        let new = part_name(name, Some(std::process::id()));
        place::remove(&*dir, &new);
        symlinkat(target, &*dir, new.as_os_str())?;
        let named = place::set_time(&*dir, &new, entry)
            .and_then(|()| renameat(&*dir, new.as_os_str(), &*dir, name));
        if named.is_err() {
            place::remove(&*dir, &new);
        }
        Ok(named?)
    }

    fn hard_link(&mut self, entry: &Entry, to: u32) -> io::Result<()> {
        let first = self.entries.get(to as usize).ok_or(nix::errno::Errno::ENOENT)?;
        let (from, dir) = (
            self.place.dir(self.entries, first.parent)?,
            self.place.dir(self.entries, entry.parent)?,
        );
        let (first, name) = (self.place.name(first), self.place.name(entry));
        let new = part_name(name, Some(std::process::id()));
        place::remove(&*dir, &new);
        linkat(&*from, first, &*dir, new.as_os_str(), AtFlags::empty())?;
        let named = renameat(&*dir, new.as_os_str(), &*dir, name);
        // Two names of one file are left as they are by a rename.
        place::remove(&*dir, &new);
        Ok(named?)
    }
}

enum Here {
    Kept(u64, Digest),
    Part(Part, Option<(u64, Digest)>),
}
