//! One JSON value a line over a Unix socket, each answer with a deadline.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Channel(BufReader<UnixStream>);

impl Channel {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(path)?)))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// After an error the channel is of no use: part of a line may be lost.
    pub(crate) fn receive(&mut self, deadline: Instant) -> io::Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.get_ref().set_read_timeout(Some(left))?;
        let mut line = vec![];
        if self.0.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The guest agent puts 0xFF, which no JSON contains, before its answer to a sync.
        let start = line.iter().rposition(|byte| *byte == 0xff).map_or(0, |at| at + 1);
        Ok(serde_json::from_slice(&line[start..])?)
    }
}
