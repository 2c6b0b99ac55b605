//! Frames: a kind, the length of the payload (u32 LE), the payload.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::error::CopyError;

pub(crate) const HEADER: usize = 5;
/// Of data, as much as one frame carries; nothing else is longer.
pub(crate) const MAX_PAYLOAD: usize = 256 << 10;
const BUFFER: usize = 512 << 10;

macro_rules! kinds {
    ($($(#[$of:meta])* $kind:ident = $number:literal,)*) => {
        /// Grows at its end only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum FrameKind { $($(#[$of])* $kind = $number,)* }

        impl FrameKind {
            fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }

            fn byte(self) -> u8 {
                match self { $(Self::$kind => $number,)* }
            }
        }
    };
}

kinds! {
    /// What the half in the guest is to do. First and once.
    Task = 0,
    Entry = 1,
    ListEnd = 2,
    /// Index u32, what is here u64, its SHA-256 unless that is 0.
    Want = 3,
    /// Index u32, from which byte on u64.
    Begin = 4,
    Data = 5,
    /// u64: so many bytes of nothing.
    Hole = 6,
    /// u64: the file's size.
    End = 7,
    Done = 8,
    /// The last word of an end that gives up, and why.
    Fail = 9,
}

/// Writes frames; what is not data is gathered until it is flushed.
pub(crate) struct Sender<W> {
    to: W,
    held: Vec<u8>,
}

impl<W: Write> Sender<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, held: vec![] }
    }

    pub(crate) fn say(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), CopyError> {
        self.held.extend(header(kind, payload.len()));
        self.held.extend_from_slice(payload);
        if self.held.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// `frame` begins with room for the header.
    pub(crate) fn data(&mut self, frame: &mut [u8]) -> Result<(), CopyError> {
        let length = frame.len().saturating_sub(HEADER);
        if let Some(place) = frame.first_chunk_mut() {
            *place = header(FrameKind::Data, length);
        }
        self.flush()?;
        self.to.write_all(frame).map_err(CopyError::Broken)
    }

    pub(crate) fn flush(&mut self) -> Result<(), CopyError> {
        let written = self.to.write_all(&self.held).and_then(|()| self.to.flush());
        self.held.clear();
        written.map_err(CopyError::Broken)
    }

    /// Tells the other end why this one gives up. It may have gone.
    pub(crate) fn fail(&mut self, error: &CopyError) {
        if !matches!(error, CopyError::There(_) | CopyError::Broken(_)) {
            drop(self.say(FrameKind::Fail, error.told().as_bytes()).and_then(|()| self.flush()));
        }
    }
}

fn header(kind: FrameKind, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [kind.byte(), a, b, c, d]
}

/// Reads frames.
pub(crate) struct Listener<R>(BufReader<R>);

impl<R: Read> Listener<R> {
    pub(crate) fn new(from: R) -> Self {
        Self(BufReader::with_capacity(BUFFER, from))
    }

    /// The next frame's kind and length. The failure of the other end is an error here.
    pub(crate) fn next(&mut self) -> Result<(FrameKind, usize), CopyError> {
        let mut head = [0; HEADER];
        self.0.read_exact(&mut head).map_err(CopyError::Broken)?;
        let [kind, length @ ..] = head;
        let kind = FrameKind::of(kind).ok_or(CopyError::Nonsense("a frame of an unknown kind"))?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Err(CopyError::Nonsense("a frame that is too long"));
        }
        if kind == FrameKind::Fail {
            let why = self.payload(length)?;
            return Err(CopyError::There(printable(&why)));
        }
        Ok((kind, length))
    }

    pub(crate) fn payload(&mut self, length: usize) -> Result<Vec<u8>, CopyError> {
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).map_err(CopyError::Broken)?;
        Ok(payload)
    }

    /// A payload in the pieces in which it comes.
    pub(crate) fn pieces(
        &mut self,
        mut length: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        while length > 0 {
            let held = match self.0.fill_buf() {
                Ok([]) => return Err(CopyError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(held) => held,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Broken(error)),
            };
            let piece = held.get(..length.min(held.len())).unwrap_or_default();
            let taken = piece.len();
            take(piece)?;
            self.0.consume(taken);
            length -= taken;
        }
        Ok(())
    }

    /// A payload of numbers.
    pub(crate) fn numbers<const N: usize>(&mut self, length: usize) -> Result<[u8; N], CopyError> {
        let payload = self.payload(length)?;
        payload.try_into().map_err(|_| CopyError::Nonsense("a frame of another length"))
    }

    /// Why the other end stopped listening, if it said so.
    pub(crate) fn last_words(&mut self) -> Option<CopyError> {
        loop {
            match self.next() {
                Err(error @ CopyError::There(_)) => return Some(error),
                Err(_) => return None,
                Ok((_, length)) => self.payload(length).ok()?,
            };
        }
    }
}

/// The other end's words may drive a terminal.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
