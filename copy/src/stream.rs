//! A stream at one end instead of a file: what a program writes becomes a file, or a file what a
//! program reads.

use std::io::{self, Read, Write};

use crate::entry::{Entry, Kind};
use crate::error::CopyError;
use crate::frame::{FrameKind, HEADER, Listener, MAX_PAYLOAD, Sender};
use crate::send::{Question, explain};
use crate::{Progress, Watch};

const MODE: u32 = 0o644;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// As one file without a name of its own. `now` is the time it gets.
pub fn send_stream(
    mut source: impl Read,
    now: (i64, u32),
    to: impl Write,
    answers: impl Read,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    let (mut sender, mut listener) = (Sender::new(to), Listener::new(answers));
    let sent = feed(&mut source, now, &mut sender, &mut listener, watch);
    sent.map_err(|error| explain(error, &mut sender, &mut listener))
}

fn feed(
    source: &mut impl Read,
    now: (i64, u32),
    sender: &mut Sender<impl Write>,
    listener: &mut Listener<impl Read>,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    let kind = Kind::File { size: None };
    let entry = Entry { parent: None, name: vec![], mode: MODE, modified: now, kind };
    sender.say(FrameKind::Entry, &entry.encode())?;
    sender.say(FrameKind::ListEnd, &[])?;
    sender.flush()?;
    let (FrameKind::Want, length) = listener.next()? else {
        return Err(CopyError::Nonsense("no question"));
    };
    let question = Question::of(&listener.payload(length)?)?;
    let begin = [question.index.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat();
    sender.say(FrameKind::Begin, &begin)?;
    let mut progress = Progress::default();
    let mut buffer = vec![0; HEADER + MAX_PAYLOAD];
    loop {
        match source.read(buffer.get_mut(HEADER..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => {
                sender.data(buffer.get_mut(..HEADER + read).unwrap_or_default())?;
                progress.done += read as u64;
                watch(progress);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                let path = "standard input".into();
                return Err(CopyError::Here { what: "read", path, source });
            }
        }
    }
    sender.say(FrameKind::End, &progress.done.to_le_bytes())?;
    sender.flush()?;
    match listener.next()? {
        (FrameKind::Done, _) => Ok(progress),
        _ => Err(CopyError::Nonsense("a second question")),
    }
}

/// The one file that there may be.
pub fn receive_stream(
    mut sink: impl Write,
    from: impl Read,
    answers: impl Write,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    let (mut listener, mut sender) = (Listener::new(from), Sender::new(answers));
    let received = drain(&mut sink, &mut listener, &mut sender, watch);
    match &received {
        Err(error) => sender.fail(error),
        Ok(_) => sender.say(FrameKind::Done, &[]).and_then(|()| sender.flush())?,
    }
    received
}

fn drain(
    sink: &mut impl Write,
    listener: &mut Listener<impl Read>,
    sender: &mut Sender<impl Write>,
    watch: Watch<'_>,
) -> Result<Progress, CopyError> {
    let mut progress = Progress::default();
    let (mut count, mut index) = (0, None);
    loop {
        match listener.next()? {
            (FrameKind::Entry, length) => {
                let entry = Entry::decode(&listener.payload(length)?, count)?;
                if let Kind::File { size } = entry.kind {
                    progress.total = size.unwrap_or(0);
                    index = Some(count);
                }
                count += 1;
            }
            (FrameKind::ListEnd, length) => {
                listener.payload(length)?;
                break;
            }
            _ => return Err(CopyError::Nonsense("no list")),
        }
    }
    let (Some(index), 1) = (index, count) else {
        return Err(CopyError::refused("standard output", "takes one file, no directory"));
    };
    let question = [index.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat();
    sender.say(FrameKind::Want, &question)?;
    sender.flush()?;
    let lost = |source| CopyError::Here { what: "write", path: "standard output".into(), source };
    loop {
        match listener.next()? {
            (FrameKind::Begin, length) => drop(listener.payload(length)?),
            (FrameKind::Data, length) => {
                listener.pieces(length, |piece| sink.write_all(piece).map_err(lost))?;
                progress.done += length as u64;
            }
            (FrameKind::Hole, length) => {
                let mut left = u64::from_le_bytes(listener.numbers(length)?);
                progress.done = progress.done.saturating_add(left);
                while left > 0 {
                    let length = usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len());
                    sink.write_all(ZEROS.get(..length).unwrap_or_default()).map_err(lost)?;
                    left -= length as u64;
                }
            }
            (FrameKind::End, length) => {
                listener.payload(length)?;
                sink.flush().map_err(lost)?;
                return Ok(progress);
            }
            _ => return Err(CopyError::Nonsense("something else in a file")),
        }
        watch(progress);
    }
}
