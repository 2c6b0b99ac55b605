//! All that can be known before there is a VM: the repository, what of it is to be sent, and whether
//! anything stands in the way.

use std::collections::HashSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::{Result, WorkspaceError};
use super::git::names;
use super::manifest;
use super::repository::Repository;
use super::scan::{Hashed, Root};
use super::select::select;
use crate::model::{Digest, Manifest, Selection, SentFile, WorkspaceMode};

#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    pub mode: WorkspaceMode,
    pub selection: Selection,
    /// The guest's branch, in place of the host's.
    pub branch: Option<String>,
    /// Where that branch begins, in place of HEAD.
    pub from: Option<String>,
    /// What the daemon keeps of the last time: content that is sure to be the same is not read again.
    pub last: Option<Vec<u8>>,
}

#[derive(Debug)]
pub struct Plan {
    pub repository: Repository,
    pub mode: WorkspaceMode,
    pub selection: Selection,
    /// The commit that the guest's tree stands on.
    pub commit: String,
    /// `None`: detached.
    pub branch: Option<String>,
    pub manifest: Manifest,
    /// What was sent the last time, as far as that is known.
    pub(super) base: Base,
    /// Whether each has the same in the commit.
    pub(super) committed: Vec<bool>,
    /// The commit has them, the tree does not.
    pub(super) gone: Vec<Vec<u8>>,
    /// Tracked and not sent.
    pub left_out: Vec<Vec<u8>>,
    /// Not tracked, not ignored, and left behind.
    pub untracked_left: usize,
    /// Repositories within that are no submodules, and left behind.
    pub nested: Vec<Vec<u8>>,
    /// Submodules of which nothing is here to be sent.
    pub absent: Vec<Vec<u8>>,
    /// Files that hold a pointer in place of what git-lfs has not fetched.
    pub pointers: usize,
}

/// What is there already where the guest's note names this digest.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub(super) digest: Option<Digest>,
    pub(super) manifest: Manifest,
}

pub fn plan(path: &Path, options: PlanOptions) -> Result<Plan> {
    let repository = Repository::find(path)?;
    repository.check_settled()?;
    let PlanOptions { mode, selection, branch, from, last } = options;
    if let Some(branch) = &branch {
        repository.check_branch(branch)?;
    }
    let commit = match &from {
        Some(from) => repository.revision(from)?,
        None => repository.head.clone(),
    };
    let base = last.map(|last| Base::of(&last)).unwrap_or_default();
    let scanned_ns = now_ns();
    let selected = select(&repository, &selection, mode, true)?;
    let root = Root::open(&repository.root)?;
    let paths: Vec<&[u8]> = selected.files.keys().map(Vec::as_slice).collect();
    let stats = root.stat_all(&paths);
    let there = paths.iter().zip(&stats).filter_map(|(path, stat)| Some((*path, (*stat)?)));
    let there: Vec<_> = there.collect();
    let known: Vec<_> =
        there.iter().map(|(path, stat)| base.manifest.vouched(path, stat)).collect();
    let unknown = there.iter().zip(&known).filter(|(_, known)| known.is_none());
    let unknown: Vec<_> = unknown.map(|((path, stat), _)| (*path, stat.is_link)).collect();
    let mut hashes = root.hash_all(&unknown).into_iter();
    let (mut files, mut unreadable, mut pointers) = (vec![], vec![], 0);
    for ((path, stat), known) in there.into_iter().zip(known) {
        let hash = match known {
            Some(hash) => hash,
            None => match hashes.next().unwrap_or(Hashed::Unreadable) {
                Hashed::Content { hash, is_pointer } => {
                    pointers += usize::from(is_pointer);
                    hash
                }
                Hashed::Gone => continue,
                Hashed::Unreadable => {
                    unreadable.push(path.to_vec());
                    continue;
                }
            },
        };
        files.push(SentFile { path: path.to_vec(), stat, hash });
    }
    if !unreadable.is_empty() {
        return Err(WorkspaceError::Unreadable { paths: unreadable });
    }
    let differing = differing(&repository, &commit)?;
    let is_tracked = |path: &[u8]| selected.files.get(path).copied().unwrap_or(false);
    let committed =
        files.iter().map(|file| is_tracked(&file.path) && !differing.contains(&file.path));
    let committed = committed.collect();
    let sent: HashSet<&[u8]> = files.iter().map(|file| file.path.as_slice()).collect();
    let left_out: HashSet<&[u8]> = selected.left_out.iter().map(Vec::as_slice).collect();
    let in_tree = repository.git.run(&["ls-tree", "-r", "-z", "--name-only", &commit])?;
    let gone = names(&in_tree).filter(|path| {
        differing.contains(*path) && !sent.contains(path) && !left_out.contains(path)
    });
    let gone = gone.map(<[u8]>::to_vec).collect();
    let branch = branch.or_else(|| repository.branch.clone());
    Ok(Plan {
        repository,
        mode,
        selection,
        commit,
        branch,
        manifest: Manifest { scanned_ns, files },
        base,
        committed,
        gone,
        left_out: selected.left_out,
        untracked_left: selected.untracked_left,
        nested: selected.nested,
        absent: selected.absent,
        pointers,
    })
}

/// What of the working tree is not as in the commit. Git knows about filters and line ends.
fn differing(repository: &Repository, commit: &str) -> Result<HashSet<Vec<u8>>> {
    let args = [
        "diff",
        "--name-only",
        "-z",
        "--no-renames",
        "--no-ext-diff",
        "--ignore-submodules=all",
        commit,
        "--",
    ];
    Ok(names(&repository.git.run(&args)?).map(<[u8]>::to_vec).collect())
}

#[allow(clippy::disallowed_methods, reason = "compared with time stamps of files")]
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Base {
    fn of(last: &[u8]) -> Self {
        let Some(manifest) = manifest::decode(last) else { return Self::default() };
        Self { digest: Some(manifest::digest(last)), manifest }
    }
}

impl Plan {
    /// What was sent the last time and is not to be there any more. `last`: what the daemon keeps of it.
    #[must_use]
    pub fn removed(&self, last: &[u8]) -> Vec<Vec<u8>> {
        self.removed_since(&manifest::decode(last).unwrap_or_default())
    }

    pub(super) fn removed_since(&self, last: &Manifest) -> Vec<Vec<u8>> {
        let paths = last.files.iter().map(|file| &file.path);
        paths.filter(|path| self.manifest.find(path).is_none()).cloned().collect()
    }

    /// How many of them are here all the same.
    pub fn still_here(&self, paths: &[Vec<u8>]) -> Result<usize> {
        let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let stats = Root::open(&self.repository.root)?.stat_all(&paths);
        Ok(stats.iter().flatten().count())
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.stat.size).sum()
    }
}
