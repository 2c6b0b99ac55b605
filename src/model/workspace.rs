//! A repository as it was sent into a VM, and whether the host's is still the same.
//!
//! The comparison is of content: stat alone tells only where content need not be looked at. Whoever
//! asks does the looking ([`Manifest::suspects`]) and hands the result in ([`Manifest::drift`]).

use std::collections::HashMap;
use std::fmt;

use super::ids::Digest;

/// A change within the clock's tick of a scan does not show in a time stamp.
const TICK_NS: i64 = 20_000_000;
/// Paths that a summary names.
const NAMED: usize = 3;

/// The durable record: what was sent where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    pub guest_path: String,
    /// The root of the repository.
    pub host_path: String,
    /// The commit that the host's HEAD was at.
    pub head: String,
    /// What the guest's HEAD was set to.
    pub branch: Option<String>,
    pub mode: WorkspaceMode,
    pub selection: Selection,
    pub files: u64,
    pub bytes: u64,
    /// Of the manifest, which is kept beside.
    pub manifest: Digest,
    pub prepared_unix_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkspaceMode {
    /// The history of HEAD; no submodules.
    #[default]
    Shallow,
    /// All branches and tags, and the files of submodules.
    FullCopy,
}

/// Which of the host's files were meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub include_untracked: bool,
    pub exclude: Vec<String>,
    pub include_ignored: Vec<String>,
}

/// What was sent, ordered by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// When the scan began.
    pub scanned_ns: i64,
    pub files: Vec<SentFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFile {
    pub path: Vec<u8>,
    pub stat: FileStat,
    pub hash: Digest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    pub is_link: bool,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub inode: u64,
}

/// A file that is meant now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFile {
    pub path: Vec<u8>,
    pub tracked: bool,
    pub stat: FileStat,
}

/// Paths by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub modified: Vec<Vec<u8>>,
    pub added: Vec<Vec<u8>>,
    pub removed: Vec<Vec<u8>>,
    pub untracked: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadMoved {
    pub from: String,
    pub to: String,
    /// From one to the other; `None` if they are not in one line.
    pub commits: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Staleness {
    Clean,
    Stale {
        head: Option<HeadMoved>,
        drift: Drift,
    },
    /// The host's side is not there to compare with.
    Unknown(String),
}

impl WorkspaceMode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shallow => "shallow",
            Self::FullCopy => "full_copy",
        }
    }
}

impl FileStat {
    /// Whether the difference alone shows that the content or the mode is another.
    fn differs(&self, other: &Self) -> bool {
        (self.is_link, self.size) != (other.is_link, other.size)
            || !self.is_link && self.mode != other.mode
    }

    /// Whether a file with this stat may have changed without a trace since a scan that began then.
    #[must_use]
    pub fn is_racy(&self, scanned_ns: i64) -> bool {
        self.ctime_ns.max(self.mtime_ns) >= scanned_ns - TICK_NS
    }
}

impl Manifest {
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<&SentFile> {
        let at = self.files.binary_search_by(|file| file.path.as_slice().cmp(path)).ok()?;
        self.files.get(at)
    }

    /// What was hashed of a file that is sure to be as it was.
    #[must_use]
    pub fn vouched(&self, path: &[u8], stat: &FileStat) -> Option<Digest> {
        let sent = self.find(path)?;
        (sent.stat == *stat && !stat.is_racy(self.scanned_ns)).then_some(sent.hash)
    }

    /// Indices of those whose content has to be hashed before anything can be said of them.
    #[must_use]
    pub fn suspects(&self, seen: &[SeenFile]) -> Vec<usize> {
        let is_suspect = |file: &SeenFile| {
            let sent = self.find(&file.path);
            sent.is_some_and(|sent| !sent.stat.differs(&file.stat))
                && self.vouched(&file.path, &file.stat).is_none()
        };
        (0..seen.len()).filter(|at| seen.get(*at).is_some_and(is_suspect)).collect()
    }

    /// `hashes`: of the suspects. One that has none could not be read and counts as modified.
    #[must_use]
    pub fn drift(&self, seen: &[SeenFile], hashes: &HashMap<usize, Digest>) -> Drift {
        let mut drift = Drift::default();
        let suspects: std::collections::HashSet<_> = self.suspects(seen).into_iter().collect();
        let mut found = std::collections::HashSet::with_capacity(seen.len());
        for (at, file) in seen.iter().enumerate() {
            found.insert(file.path.as_slice());
            let list = match self.find(&file.path) {
                None if file.tracked => &mut drift.added,
                None => &mut drift.untracked,
                Some(sent) if sent.stat.differs(&file.stat) => &mut drift.modified,
                Some(sent) if suspects.contains(&at) && hashes.get(&at) != Some(&sent.hash) => {
                    &mut drift.modified
                }
                Some(_) => continue,
            };
            list.push(file.path.clone());
        }
        let gone = self.files.iter().filter(|sent| !found.contains(sent.path.as_slice()));
        drift.removed = gone.map(|sent| sent.path.clone()).collect();
        drift
    }
}

impl Drift {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, paths)| paths.is_empty())
    }

    fn parts(&self) -> [(&'static str, &[Vec<u8>]); 4] {
        [
            ("modified", &self.modified),
            ("added", &self.added),
            ("removed", &self.removed),
            ("untracked", &self.untracked),
        ]
    }

    /// A line for each kind, with the first paths.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lines = self.parts().into_iter().filter(|(_, paths)| !paths.is_empty());
        lines
            .map(|(kind, paths)| {
                let named: Vec<_> = paths.iter().take(NAMED).map(|path| show_path(path)).collect();
                let more = match paths.len() - named.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("{} {kind}: {}{more}", paths.len(), named.join(", "))
            })
            .collect()
    }
}

impl Staleness {
    #[must_use]
    pub fn of(head: Option<HeadMoved>, drift: Drift) -> Self {
        match head.is_none() && drift.is_empty() {
            true => Self::Clean,
            false => Self::Stale { head, drift },
        }
    }
}

/// `stale (HEAD moved: 3 commits; 2 files modified, 1 untracked)`.
impl fmt::Display for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, drift) = match self {
            Self::Clean => return f.write_str("clean"),
            Self::Unknown(why) => return write!(f, "unknown ({why})"),
            Self::Stale { head, drift } => (head, drift),
        };
        let mut parts = vec![];
        if let Some(head) = head {
            parts.push(match head.commits {
                Some(1) => "HEAD moved: 1 commit".to_owned(),
                Some(count) => format!("HEAD moved: {count} commits"),
                None => "HEAD moved".to_owned(),
            });
        }
        let counts = drift.parts().into_iter().filter(|(_, paths)| !paths.is_empty());
        let counts: Vec<_> = counts
            .enumerate()
            .map(|(at, (kind, paths))| match (at, paths.len()) {
                (0, 1) => format!("1 file {kind}"),
                (0, count) => format!("{count} files {kind}"),
                (_, count) => format!("{count} {kind}"),
            })
            .collect();
        if !counts.is_empty() {
            parts.push(counts.join(", "));
        }
        write!(f, "stale ({})", parts.join("; "))
    }
}

/// `HEAD 1a2b3c4 -> 5d6e7f8 (3 commits)`.
impl fmt::Display for HeadMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |commit: &str| commit.get(..7).unwrap_or(commit).to_owned();
        write!(f, "HEAD {} -> {}", short(&self.from), short(&self.to))?;
        match self.commits {
            Some(1) => f.write_str(" (1 commit)"),
            Some(count) => write!(f, " ({count} commits)"),
            None => f.write_str(" (not in one line)"),
        }
    }
}

/// A path for people: what is no text, or would drive a terminal, is escaped.
#[must_use]
pub fn show_path(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => format!("\"{}\"", path.escape_ascii()),
    }
}

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;
