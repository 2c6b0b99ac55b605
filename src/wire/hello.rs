//! The fixed greeting that comes before any encoded value, so that two versions that share no
//! codec still understand why they part.
//!
//! ```text
//! offset 0   8 bytes   magic, one per protocol
//!        8   u16 LE    lowest version spoken
//!       10   u16 LE    highest version spoken
//!       12   u32 LE    flags: bit 0, in an answer: refused
//! ```
//!
//! The client speaks first; the server answers with the one version it chose as both bounds, or
//! with its own bounds and the refused flag.

use std::fmt;

pub const BYTES: usize = 16;
const REFUSED: u32 = 1;

/// The daemon's protocol, spoken by the CLI.
pub const DAEMON: Protocol = Protocol { magic: *b"BANGER-D", min: 1, max: 1 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub magic: [u8; 8],
    pub min: u16,
    pub max: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub magic: [u8; 8],
    pub min: u16,
    pub max: u16,
    pub flags: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("the other side does not speak banger's protocol")]
    NotBanger,
    #[error("this side speaks protocol {ours}, the other side {theirs}")]
    Version { ours: Range, theirs: Range },
}

/// `3` or `2 to 4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(pub u16, pub u16);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 {
            write!(f, "version {}", self.0)
        } else {
            write!(f, "versions {} to {}", self.0, self.1)
        }
    }
}

impl Protocol {
    fn range(self) -> Range {
        Range(self.min, self.max)
    }

    /// What a client sends.
    #[must_use]
    pub fn greeting(self) -> Hello {
        Hello { magic: self.magic, min: self.min, max: self.max, flags: 0 }
    }

    /// What a server answers, and the version both will speak.
    pub fn answer(self, client: &Hello) -> (Hello, Result<u16, HelloError>) {
        if client.magic != self.magic {
            return (Hello { flags: REFUSED, ..self.greeting() }, Err(HelloError::NotBanger));
        }
        let common = self.max.min(client.max);
        if common < self.min || common < client.min {
            let theirs = Range(client.min, client.max);
            let error = HelloError::Version { ours: self.range(), theirs };
            return (Hello { flags: REFUSED, ..self.greeting() }, Err(error));
        }
        (Hello { min: common, max: common, ..self.greeting() }, Ok(common))
    }

    /// What the server's answer means to the client.
    pub fn accept(self, server: &Hello) -> Result<u16, HelloError> {
        if server.magic != self.magic {
            return Err(HelloError::NotBanger);
        }
        let within = self.min <= server.max && server.max <= self.max;
        if server.flags & REFUSED != 0 || !within {
            let theirs = Range(server.min, server.max);
            return Err(HelloError::Version { ours: self.range(), theirs });
        }
        Ok(server.max)
    }
}

impl Hello {
    #[must_use]
    pub fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..10].copy_from_slice(&self.min.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.max.to_le_bytes());
        bytes[12..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    #[must_use]
    pub fn decode(bytes: &[u8; BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, l0, l1, h0, h1, f0, f1, f2, f3] = *bytes;
        Self {
            magic: [a, b, c, d, e, f, g, h],
            min: u16::from_le_bytes([l0, l1]),
            max: u16::from_le_bytes([h0, h1]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn speaks(min: u16, max: u16) -> Protocol {
        Protocol { magic: *b"BANGER-D", min, max }
    }

    #[test]
    fn bytes_are_frozen() {
        let bytes = *b"BANGER-D\x01\x00\x02\x00\x00\x00\x00\x00";
        assert_eq!(speaks(1, 2).greeting().encode(), bytes);
        assert_eq!(Hello::decode(&bytes), speaks(1, 2).greeting());
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let (answer, chosen) = speaks(2, 5).answer(&speaks(1, 3).greeting());
        assert_eq!(chosen, Ok(3));
        assert_eq!(speaks(1, 3).accept(&answer), Ok(3));
    }

    #[test]
    fn a_refusal_names_both_versions_on_both_sides() {
        for (server, client) in [(speaks(1, 1), speaks(2, 3)), (speaks(4, 5), speaks(2, 3))] {
            let (answer, refused) = server.answer(&client.greeting());
            assert!(refused.is_err());
            let error = client.accept(&answer).unwrap_err().to_string();
            assert!(error.contains("versions 2 to 3"), "{error}");
            assert!(error.contains(&server.range().to_string()), "{error}");
        }
    }

    #[test]
    fn strangers_are_told_so() {
        let stranger = Hello { magic: *b"GET / HT", min: 0, max: 0, flags: 0 };
        assert_eq!(DAEMON.answer(&stranger).1, Err(HelloError::NotBanger));
        assert_eq!(DAEMON.accept(&stranger), Err(HelloError::NotBanger));
    }
}
