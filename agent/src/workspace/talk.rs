//! Frames on the standard streams. Content is read piecewise, wherever it is needed.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};

use banger_agent::contract::codec::{Decode, Encode};
use banger_agent::contract::workspace::{
    self as contract, Answer, Ask, Frame, HEADER_BYTES, MAX_DATA, Refusal,
};

use super::fault::{Fault, Result};

const BUFFER: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Talk {
    from: BufReader<File>,
    to: BufWriter<File>,
    /// Of the content that arrives, what is left of its frame.
    left: usize,
}

impl Talk {
    pub(super) fn new(from: File, to: File) -> Self {
        let from = BufReader::with_capacity(BUFFER, from);
        Self { from, to: BufWriter::with_capacity(BUFFER, to), left: 0 }
    }

    /// `None`: the host has nothing more to ask.
    pub(super) fn ask(&mut self) -> Result<Option<Ask>> {
        match self.header()? {
            None => Ok(None),
            Some(Frame::Record(length)) => self.payload(length).map(Some),
            Some(Frame::Data(_)) => Err(unexpected("content")),
        }
    }

    /// The next piece of content, not more than there is room.
    pub(super) fn data(&mut self, room: &mut [u8]) -> Result<usize> {
        while self.left == 0 {
            match self.header()? {
                Some(Frame::Data(length)) => self.left = length,
                Some(Frame::Record(_)) => return Err(unexpected("a question")),
                None => return Err(Fault::Left),
            }
        }
        let length = room.len().min(self.left);
        let room = room.get_mut(..length).unwrap_or_default();
        self.from.read_exact(room).map_err(|_| Fault::Left)?;
        self.left -= length;
        Ok(length)
    }

    pub(super) fn say(&mut self, answer: &Answer) -> Result<()> {
        self.to.write_all(&contract::record(answer)?).map_err(|_| Fault::Left)
    }

    pub(super) fn say_data(&mut self, data: &[u8]) -> Result<()> {
        for piece in data.chunks(MAX_DATA) {
            self.to.write_all(&contract::data_header(piece.len())?).map_err(|_| Fault::Left)?;
            self.to.write_all(piece).map_err(|_| Fault::Left)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.to.flush().map_err(|_| Fault::Left)
    }

    fn header(&mut self) -> Result<Option<Frame>> {
        read_header(&mut self.from)
            .map_err(|_| Fault::Left)?
            .map_or(Ok(None), |header| contract::parse_header(header).map(Some).map_err(Into::into))
    }

    fn payload<T: Decode<()>>(&mut self, length: usize) -> Result<T> {
        let mut payload = vec![0; length];
        self.from.read_exact(&mut payload).map_err(|_| Fault::Left)?;
        Ok(contract::decode(&payload)?)
    }
}

/// `None` at an end between two frames.
fn read_header(from: &mut impl io::Read) -> io::Result<Option<[u8; HEADER_BYTES]>> {
    let mut header = [0; HEADER_BYTES];
    loop {
        match from.read(&mut header) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                from.read_exact(header.get_mut(length..).unwrap_or_default())?;
                return Ok(Some(header));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file of records, one after the other.
pub(super) fn write_records<T: Encode>(to: &mut impl io::Write, records: &[T]) -> Result<()> {
    for record in records {
        let frame = contract::record(record)?;
        super::fault::Context::context(to.write_all(&frame), || "write what is kept".into())?;
    }
    Ok(())
}

/// What was cut short ends the reading.
pub(super) fn read_records<T: Decode<()>>(from: &mut impl io::Read) -> Result<Vec<T>> {
    let mut records = vec![];
    let damaged = |_| unexpected("the end of what is kept");
    while let Some(header) = read_header(from).map_err(damaged)? {
        let Frame::Record(length) = contract::parse_header(header)? else {
            return Err(unexpected("content"));
        };
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).map_err(damaged)?;
        records.push(contract::decode(&payload)?);
    }
    Ok(records)
}

fn unexpected(what: &str) -> Fault {
    Fault::Refused { code: Refusal::Failed, message: format!("{what} out of turn") }
}
