//! Frames to and from the guest's end. Whatever comes from there is checked before it is believed.

use std::io::Write;

use banger_agent::contract::codec::Decode;
use banger_agent::contract::workspace::{
    self as contract, Answer, Ask, Entry, Found, Frame, HEADER_BYTES, Kind, is_plain, pieces,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};

use super::error::{Context as _, Result, WorkspaceError};

#[derive(Debug)]
pub(super) struct Talk<S> {
    pub(super) from: Heard<S>,
    pub(super) to: WriteHalf<S>,
}

/// What the guest says.
#[derive(Debug)]
pub(super) struct Heard<S>(BufReader<ReadHalf<S>>);

/// What the guest has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: Kind,
    pub(super) mode: u32,
}

impl<S: AsyncRead + AsyncWrite> Talk<S> {
    pub(super) fn new(stream: S) -> Self {
        let (from, to) = tokio::io::split(stream);
        Self { from: Heard(BufReader::with_capacity(64 << 10, from)), to }
    }

    pub(super) async fn open(&mut self, guest_path: &str) -> Result<Found> {
        self.ask(&Ask::Open { path: guest_path.into() }).await?;
        match self.from.answer().await? {
            Answer::Opened(found) => Ok(found),
            _ => Err(WorkspaceError::OutOfTurn("something else than what is there")),
        }
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<()> {
        let frame = contract::record(ask)?;
        if self.to.write_all(&frame).await.is_err() {
            // It has ended, and what it said last tells why.
            return Err(self.from.last_word().await);
        }
        Ok(())
    }

    /// Asks, and hands over each answer up to the last.
    pub(super) async fn each(
        &mut self,
        ask: &Ask,
        mut each: impl FnMut(Answer) -> Result<()>,
    ) -> Result<()> {
        self.ask(ask).await?;
        loop {
            match self.from.answer().await? {
                Answer::Done => return Ok(()),
                answer => each(answer)?,
            }
        }
    }

    /// Reads paths one by one. `sink` says where the content of the nth goes.
    pub(super) async fn read<W: Write>(
        &mut self,
        paths: &[Vec<u8>],
        mut sink: impl FnMut(usize, Content) -> Result<W>,
    ) -> Result<()> {
        let mut number = 0;
        for piece in pieces(paths.to_vec(), Vec::len) {
            let count = piece.len();
            self.ask(&Ask::Read(piece)).await?;
            for _ in 0..count {
                match self.from.answer().await? {
                    Answer::Absent => {}
                    Answer::Content { kind, mode, size } => {
                        let mut to = sink(number, Content { kind, mode })?;
                        self.from.content(size, &mut to).await?;
                    }
                    _ => return Err(WorkspaceError::OutOfTurn("something else than content")),
                }
                number += 1;
            }
            match self.from.answer().await? {
                Answer::Done => {}
                _ => return Err(WorkspaceError::OutOfTurn("more than was asked for")),
            }
        }
        Ok(())
    }

    pub(super) async fn kept(&mut self) -> Result<Vec<Entry>> {
        let mut kept = vec![];
        self.each(&Ask::Kept, |answer| {
            if let Answer::Entries(entries) = answer {
                kept.extend(entries);
            }
            Ok(())
        })
        .await?;
        check(kept.iter().map(|entry| &entry.path))?;
        Ok(kept)
    }
}

impl<S: AsyncRead> Heard<S> {
    /// A refusal is an error.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        match self.header().await? {
            Frame::Data(_) => Err(WorkspaceError::OutOfTurn("content")),
            Frame::Record(length) => match self.payload(length).await? {
                Answer::Refused { code, message } => Err(WorkspaceError::Refused { code, message }),
                answer => Ok(answer),
            },
        }
    }

    async fn content(&mut self, size: u64, to: &mut impl Write) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let Frame::Data(length) = self.header().await? else {
                return Err(WorkspaceError::OutOfTurn("an answer within content"));
            };
            left = left.checked_sub(length as u64).ok_or(WorkspaceError::OutOfTurn("more"))?;
            let mut piece = vec![0; length];
            self.0.read_exact(&mut piece).await.map_err(|_| WorkspaceError::Ended)?;
            to.write_all(&piece).context(|| "keep what the guest has".into())?;
        }
        to.flush().context(|| "keep what the guest has".into())
    }

    /// Why it does not listen any more.
    pub(super) async fn last_word(&mut self) -> WorkspaceError {
        loop {
            match self.answer().await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    async fn header(&mut self) -> Result<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).await.map_err(|_| WorkspaceError::Ended)?;
        Ok(contract::parse_header(header)?)
    }

    async fn payload<T: Decode<()>>(&mut self, length: usize) -> Result<T> {
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.map_err(|_| WorkspaceError::Ended)?;
        Ok(contract::decode(&payload)?)
    }
}

/// A guest may say anything; a path of a workspace leads nowhere else, and not into git's own.
pub(super) fn check<'a>(paths: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<()> {
    match paths.into_iter().all(|path| is_plain(path)) {
        true => Ok(()),
        false => Err(WorkspaceError::OutOfTurn("a path that is none")),
    }
}
