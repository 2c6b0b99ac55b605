//! A repository of the host as a directory in the guest: what both ends of one transfer say.
//!
//! Spoken over the standard streams of the agent itself, run with the argument [`VERB`] (see
//! [`super::exec::AGENT`]). Frames are a kind, a u32 LE length and a payload: a record of this file, or content as it is. The host asks, the guest answers;
//! only content is sent without waiting.
//!
//! ```text
//! Open ─> Opened                    the lock is held until the program ends
//! Changes, List, Kept, Read ...     looking, in any order
//! Keep? Want* Drop* Sync ─> Need* Done
//!                                   the tree that is to be; content of what is needed follows
//! Commit ─> Done                    all of it, or, whatever happens, the tree that was
//! ```

use super::codec::{self, CodecError, Decode, Encode};

/// Another number is another protocol.
pub const VERB: &str = "workspace-2";
/// Where the guest keeps what it knows, below the workspace itself: it goes with it.
pub const STATE_DIR: &str = ".git/banger";

pub const HEADER_BYTES: usize = 5;
pub const MAX_DATA: usize = 128 << 10;
/// Of lists in one record; the rest comes in the next.
pub const LIST_BYTES: usize = 256 << 10;
const RECORD: u8 = 0;
const DATA: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Kind {
    File,
    /// A symbolic link, never followed; its content is its target.
    Link,
    /// The commit has it, the host's tree had not.
    Gone,
}

/// One path of a workspace as the host has it. Paths below `.git/` are git's own files.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Relative, of plain names; any bytes but NUL.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    pub mtime_ns: i64,
    /// SHA-256 of the content.
    pub hash: [u8; 32],
    /// The commit that the workspace stands on has the same.
    pub committed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// An absolute path in the guest. The first of all.
    Open {
        path: Vec<u8>,
    },
    /// What differs from what was committed here last.
    Changes,
    /// What is in directories that came up as new.
    List(Vec<Vec<u8>>),
    /// The entries of the last commit, and its note.
    Kept,
    /// Content of paths, each answered in its turn.
    Read(Vec<Vec<u8>>),
    /// Git's objects that were not sent from the host, and its references.
    Git,
    Want(Vec<Entry>),
    /// To be removed; what is wanted as well is put there anew.
    Drop(Vec<Vec<u8>>),
    Sync,
    /// `note`: the host's own, kept with the tree.
    Commit {
        note: String,
    },
    /// The tree of the last commit is wanted, all of it as the commit has it, but for what is wanted
    /// or dropped besides. Git's own files, and what is gone, are still to be named.
    Keep,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    Opened(Found),
    Changed(Vec<Change>),
    Moved(Vec<Moved>),
    Entries(Vec<Entry>),
    Note(String),
    /// So many bytes of content follow.
    Content {
        kind: Kind,
        mode: u32,
        size: u64,
    },
    Absent,
    Paths(Vec<Vec<u8>>),
    References(Vec<Reference>),
    /// Indices of wanted entries, ascending.
    Need(Vec<u32>),
    Done,
    /// The last word.
    Refused {
        code: Refusal,
        message: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Found {
    /// Room for a workspace.
    Nothing,
    Ours {
        /// Of the last commit.
        note: String,
    },
    /// In use by something else.
    Other { what: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Somebody else is at it.
    Busy,
    NoSpace,
    /// The path cannot be a workspace.
    Path,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    pub path: Vec<u8>,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum How {
    Modified,
    Deleted,
    New,
    /// A directory that was not sent, with whatever is in it.
    NewDirectory,
}

/// A reference of git's; `HEAD` may name another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Reference {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Moved {
    pub name: Vec<u8>,
    pub was: Option<Vec<u8>>,
    pub is: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    #[error("a workspace frame of unknown kind {0}")]
    Kind(u8),
    #[error("a workspace frame of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("a workspace record")]
    Record(#[source] CodecError),
}

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    Record(usize),
    Data(usize),
}

/// A record in its frame.
pub fn record<T: Encode>(value: &T) -> Result<Vec<u8>, TalkError> {
    let payload = codec::encode(value).map_err(TalkError::Record)?;
    let mut frame = header(RECORD, payload.len(), codec::MAX_BYTES)?.to_vec();
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// The header of so much content.
pub fn data_header(length: usize) -> Result<[u8; HEADER_BYTES], TalkError> {
    header(DATA, length, MAX_DATA)
}

fn header(kind: u8, length: usize, limit: usize) -> Result<[u8; HEADER_BYTES], TalkError> {
    let too_long = || TalkError::TooLong(length);
    let bytes = u32::try_from(length).map_err(|_| too_long())?.to_le_bytes();
    if length > limit {
        return Err(too_long());
    }
    let mut header = [kind; HEADER_BYTES];
    header[1..].copy_from_slice(&bytes);
    Ok(header)
}

pub fn parse_header(header: [u8; HEADER_BYTES]) -> Result<Frame, TalkError> {
    let [kind, length @ ..] = header;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    match kind {
        RECORD if length <= codec::MAX_BYTES => Ok(Frame::Record(length)),
        DATA if length <= MAX_DATA => Ok(Frame::Data(length)),
        RECORD | DATA => Err(TalkError::TooLong(length)),
        kind => Err(TalkError::Kind(kind)),
    }
}

pub fn decode<T: Decode<()>>(payload: &[u8]) -> Result<T, TalkError> {
    codec::decode(payload).map_err(TalkError::Record)
}

/// Cuts a list so that each piece fits a record. `weigh`: the bytes of an item, about.
pub fn pieces<T>(list: Vec<T>, weigh: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut pieces, mut piece, mut weight) = (vec![], vec![], 0);
    for item in list {
        weight += weigh(&item);
        piece.push(item);
        if weight >= LIST_BYTES {
            pieces.push(std::mem::take(&mut piece));
            weight = 0;
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

impl Entry {
    /// For [`pieces`].
    #[must_use]
    pub fn weight(&self) -> usize {
        self.path.len() + 64
    }
}

/// Whether a path is relative, of plain names, and so leads nowhere else.
#[must_use]
pub fn is_plain(path: &[u8]) -> bool {
    let name = |name: &[u8]| !name.is_empty() && name != b"." && name != b"..";
    !path.is_empty() && !path.contains(&0) && path.split(|byte| *byte == b'/').all(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_limited_and_told_apart() {
        let ask = Ask::Open { path: b"/root/repo".to_vec() };
        let frame = record(&ask).unwrap();
        let (header, payload) = frame.split_first_chunk().unwrap();
        assert_eq!(parse_header(*header).unwrap(), Frame::Record(payload.len()));
        assert_eq!(decode::<Ask>(payload).unwrap(), ask);
        assert_eq!(parse_header(data_header(7).unwrap()).unwrap(), Frame::Data(7));
        assert!(matches!(data_header(MAX_DATA + 1), Err(TalkError::TooLong(_))));
        assert!(matches!(parse_header([1, 255, 255, 255, 255]), Err(TalkError::TooLong(_))));
        assert!(matches!(parse_header([2, 0, 0, 0, 0]), Err(TalkError::Kind(2))));
    }

    #[test]
    fn only_plain_paths_are_paths() {
        for plain in [&b"a"[..], b"a/b", b".git/HEAD", b"a\nb", b"\xff/..x"] {
            assert!(is_plain(plain), "{plain:?}");
        }
        for bad in [&b""[..], b"/a", b"a/", b"a//b", b"..", b"a/../b", b"./a", b"a\0b"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn long_lists_come_in_pieces() {
        let list: Vec<Vec<u8>> = (0..10).map(|_| vec![0; LIST_BYTES / 3]).collect();
        let lengths: Vec<_> = pieces(list, Vec::len).iter().map(Vec::len).collect();
        assert_eq!(lengths, [4, 4, 2]);
    }
}
