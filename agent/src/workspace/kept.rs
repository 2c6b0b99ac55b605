//! What was committed last: every entry with the stat that its file then had, and git's references.
//! It lives below the tree's own `.git`, so nothing is left of it when the tree is removed.

use std::fs::{File, Metadata};
use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use banger_agent::contract::codec::{Decode, Encode};
use banger_agent::contract::workspace::{Entry, Kind, Reference, pieces};
use nix::sys::stat::{FileStat, SFlag};

use super::fault::{Context as _, Result};
use super::place::Place;
use super::talk::{read_records, write_records};

const FILE: &str = "kept";
/// A change within the clock's tick of its record does not show in a time stamp.
const TICK_NS: i64 = 20_000_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) note: String,
    pub(super) entries: Vec<Item>,
    pub(super) references: Vec<Reference>,
    /// The latest time stamp of all.
    pub(super) until_ns: i64,
}

/// An entry and what its file looked like.
#[derive(Clone, Debug, Encode, Decode)]
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) stat: Stat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Stat {
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
}

#[derive(Encode, Decode)]
enum Record {
    Note(String),
    Items(Vec<Item>),
    References(Vec<Reference>),
}

/// What the system tells of a path, without following a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// `None`: neither a file nor a link.
    kind: Option<Kind>,
    mode: u32,
    pub(super) stat: Stat,
}

fn ns(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000) + nanos
}

impl Seen {
    pub(super) fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Some(Kind::File),
            SFlag::S_IFLNK => Some(Kind::Link),
            _ => None,
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mtime_ns = ns(stat.st_mtime, stat.st_mtime_nsec);
        let ctime_ns = ns(stat.st_ctime, stat.st_ctime_nsec);
        Self { kind, mode: stat.st_mode & 0o777, stat: Stat { size, mtime_ns, ctime_ns } }
    }

    pub(super) fn at(path: &Path) -> Option<Self> {
        nix::sys::stat::lstat(path).ok().as_ref().map(Self::of)
    }

    /// Files have the mode that they were sent with, links none of their own.
    pub(super) fn may_be(&self, entry: &Entry) -> bool {
        let has_mode = entry.kind != Kind::File || self.mode == entry.mode & 0o777;
        self.kind == Some(entry.kind) && has_mode && self.stat.size == entry.size
    }
}

impl Stat {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Kept {
    /// Whether the file with this stat is sure to be as it was.
    pub(super) fn vouches(&self, item: &Item, stat: Stat) -> bool {
        item.stat == stat && stat.ctime_ns < self.until_ns - TICK_NS
    }

    pub(super) fn load(place: &Place) -> Result<Self> {
        Self::load_from(&place.state())
    }

    fn load_from(state: &Path) -> Result<Self> {
        let file = File::open(state.join(FILE)).context(|| "open what is kept".into())?;
        let mut kept = Self::default();
        for record in read_records(&mut BufReader::new(file))? {
            match record {
                Record::Note(note) => kept.note = note,
                Record::Items(items) => kept.entries.extend(items),
                Record::References(references) => kept.references.extend(references),
            }
        }
        kept.until_ns = kept.entries.iter().map(|item| item.stat.ctime_ns).max().unwrap_or(0);
        Ok(kept)
    }

    /// Takes the place of what was kept before, at once.
    pub(super) fn save(self, state: &Path) -> Result<()> {
        let what = || "write what is kept".to_owned();
        std::fs::create_dir_all(state).context(what)?;
        let new = state.join("kept.new");
        let mut file = BufWriter::new(File::create(&new).context(what)?);
        let mut records = vec![Record::Note(self.note)];
        let weigh = |item: &Item| item.entry.weight() + 24;
        records.extend(pieces(self.entries, weigh).into_iter().map(Record::Items));
        let weigh = |one: &Reference| one.name.len() + one.value.len() + 16;
        records.extend(pieces(self.references, weigh).into_iter().map(Record::References));
        write_records(&mut file, &records)?;
        file.flush().context(what)?;
        file.get_ref().sync_all().context(what)?;
        std::fs::rename(new, state.join(FILE)).context(what)
    }
}

pub(super) fn exists(place: &Place) -> bool {
    place.state().join(FILE).is_file()
}

impl Item {
    /// Of the tree, not of git's own, and there.
    pub(super) fn is_of_tree(&self) -> bool {
        self.entry.kind != Kind::Gone && !self.entry.path.starts_with(b".git/")
    }

    /// Objects stay when others come: the guest's own may build on them.
    pub(super) fn is_object(&self) -> bool {
        self.entry.path.starts_with(b".git/objects/")
    }
}
