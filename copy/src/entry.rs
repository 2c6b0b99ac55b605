//! What is told of a file before its content. Frozen: a guest keeps the agent it was booted with.

use crate::error::CopyError;

/// One file, directory or link. Its parent comes before it; none is the place of the copy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) parent: Option<u32>,
    /// One part of a path, any bytes.
    pub(crate) name: Vec<u8>,
    pub(crate) mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, u32),
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir,
    /// Of a stream the size is not known.
    File {
        size: Option<u64>,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// The same file as that earlier one.
    HardLink {
        to: u32,
    },
    /// A directory that others are in: made if it is not there, else left as it is.
    Way,
}

const NONE: u32 = u32::MAX;
const UNKNOWN: u64 = u64::MAX;
const DIR: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const HARD_LINK: u8 = 3;
const WAY: u8 = 4;

impl Entry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, number, target): (u8, u64, &[u8]) = match &self.kind {
            Kind::Dir => (DIR, 0, b""),
            Kind::File { size } => (FILE, size.unwrap_or(UNKNOWN), b""),
            Kind::Symlink { target } => (SYMLINK, 0, target),
            Kind::HardLink { to } => (HARD_LINK, u64::from(*to), b""),
            Kind::Way => (WAY, 0, b""),
        };
        let mut bytes = vec![kind];
        bytes.extend(self.parent.unwrap_or(NONE).to_le_bytes());
        bytes.extend(self.mode.to_le_bytes());
        bytes.extend(self.modified.0.to_le_bytes());
        bytes.extend(self.modified.1.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(u32::try_from(self.name.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(&self.name);
        bytes.extend(target);
        bytes
    }

    /// `index` is the entry's own: what it refers to must have come before.
    pub(crate) fn decode(bytes: &[u8], index: u32) -> Result<Self, CopyError> {
        Self::parse(bytes, index).ok_or(CopyError::Nonsense("an entry"))
    }

    fn parse(mut bytes: &[u8], index: u32) -> Option<Self> {
        let kind = take::<1>(&mut bytes)?[0];
        let parent = u32::from_le_bytes(take(&mut bytes)?);
        let mode = u32::from_le_bytes(take(&mut bytes)?);
        let seconds = i64::from_le_bytes(take(&mut bytes)?);
        let nanos = u32::from_le_bytes(take(&mut bytes)?);
        let number = u64::from_le_bytes(take(&mut bytes)?);
        let length = usize::try_from(u32::from_le_bytes(take(&mut bytes)?)).ok()?;
        let (name, target) = bytes.split_at_checked(length)?;
        let before = |other: u32| (other < index).then_some(other);
        let parent = if parent == NONE { None } else { Some(before(parent)?) };
        let kind = match kind {
            DIR => Kind::Dir,
            FILE => Kind::File { size: (number != UNKNOWN).then_some(number) },
            SYMLINK => Kind::Symlink { target: target.to_vec() },
            HARD_LINK => Kind::HardLink { to: before(u32::try_from(number).ok()?)? },
            WAY => Kind::Way,
            _ => return None,
        };
        let modified = (seconds, nanos.min(999_999_999));
        (is_name(name) || name.is_empty() && parent.is_none()).then(|| Self {
            parent,
            name: name.to_vec(),
            mode: mode & 0o7777,
            modified,
            kind,
        })
    }
}

/// What can be an entry of a directory and leads nowhere else. Of a stream there is none.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !matches!(name, b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind) -> Entry {
        let name = b"n\n\xff".to_vec();
        Entry { parent: Some(1), name, mode: 0o755, modified: (-1, 2), kind }
    }

    #[test]
    fn entries_go_both_ways() {
        for kind in [
            Kind::Dir,
            Kind::File { size: Some(7) },
            Kind::File { size: None },
            Kind::Symlink { target: b"../x".to_vec() },
            Kind::HardLink { to: 3 },
            Kind::Way,
        ] {
            let entry = entry(kind);
            assert_eq!(Entry::decode(&entry.encode(), 4).unwrap(), entry);
        }
    }

    #[test]
    fn their_bytes_are_frozen() {
        let bytes = entry(Kind::File { size: Some(0x0102) }).encode();
        let expected = [
            &[1, 1, 0, 0, 0, 0xed, 1, 0, 0][..],
            &[0xff; 8],
            &[2, 0, 0, 0],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, b'n', b'\n', 0xff],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn names_that_lead_elsewhere_and_what_comes_later_are_refused() {
        for name in [&b".."[..], b".", b"", b"a/b", b"/", b"a\0b"] {
            let bad = Entry { name: name.to_vec(), ..entry(Kind::Dir) };
            assert!(Entry::decode(&bad.encode(), 4).is_err(), "{name:?}");
        }
        assert!(Entry::decode(&entry(Kind::Dir).encode(), 1).is_err(), "its own parent");
        assert!(Entry::decode(&entry(Kind::HardLink { to: 4 }).encode(), 4).is_err());
        let whole = entry(Kind::Dir).encode();
        for cut in 0..whole.len() {
            assert!(Entry::decode(&whole[..cut], 4).is_err());
        }
    }
}
