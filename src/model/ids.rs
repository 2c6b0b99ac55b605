//! Identities: newtypes, so that no signature takes a bare integer or string.

use std::fmt;
use std::str::FromStr;

/// Names one operation from the CLI to the last log line; also its idempotency key.
///
/// 48 bits of milliseconds since the epoch, then 80 random bits: ids sort by time of birth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub [u8; 16]);

/// Names a VM for its whole life, across restarts of its actor and reuse of its name. Random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmId(pub [u8; 16]);

/// SHA-256 of some content; names images, kernels and the files they are made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// Counts the actors built for one VM; a notice from an older one is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct ParseIdError {
    text: String,
    wanted: &'static str,
}

impl Incarnation {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl OpId {
    /// Puts an id together; the caller supplies clock and randomness, this room has neither.
    #[must_use]
    pub fn from_parts(unix_millis: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_millis.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(bytes)
    }

    #[must_use]
    pub fn unix_millis(self) -> u64 {
        self.0[..6].iter().fold(0, |acc, byte| (acc << 8) | u64::from(*byte))
    }
}

impl VmId {
    /// The form that lists show: twelve hex digits.
    #[must_use]
    pub fn short(self) -> String {
        hex(&self.0[..6])
    }
}

impl Digest {
    /// The form that lists show: twelve hex digits.
    #[must_use]
    pub fn short(self) -> String {
        hex(&self.0[..6])
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! hex_id {
    ($type:ident, $prefix:literal, $wanted:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, hex(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let digits = text.strip_prefix($prefix).and_then(unhex);
                digits
                    .map(Self)
                    .ok_or_else(|| ParseIdError { text: text.to_owned(), wanted: $wanted })
            }
        }
    };
}

hex_id!(OpId, "op-", "an operation id (op- and 32 hex digits)");
hex_id!(VmId, "", "a VM id (32 hex digits)");
hex_id!(Digest, "", "a digest (64 hex digits)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let op = OpId::from_parts(1_700_000_000_123, [7; 10]);
        assert_eq!(op.to_string().parse(), Ok(op));
        assert_eq!(op.unix_millis(), 1_700_000_000_123);
        let vm = VmId([0xab; 16]);
        assert_eq!(vm.to_string().parse(), Ok(vm));
        assert_eq!(vm.short(), "abababababab");
        assert!("op-12".parse::<OpId>().is_err());
        assert!("é".repeat(16).parse::<VmId>().is_err());
    }

    #[test]
    fn op_ids_sort_by_time() {
        assert!(OpId::from_parts(1, [0xff; 10]) < OpId::from_parts(2, [0; 10]));
    }
}
