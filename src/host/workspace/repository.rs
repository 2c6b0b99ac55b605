//! A repository that can be a workspace, or the sentence that says why it cannot.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::error::{Context as _, Result, WorkspaceError};
use super::git::{Git, line, names, said};
use crate::model::HeadMoved;

/// What git leaves while it is at something, and what that is.
const IN_PROGRESS: [(&str, &str); 5] = [
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
];

#[derive(Clone, Debug)]
pub struct Repository {
    /// Of the working tree.
    pub root: PathBuf,
    /// Of this working tree; linked ones share the rest.
    pub(super) git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
    /// The commit that HEAD is at.
    pub head: String,
    /// `None`: HEAD is detached.
    pub branch: Option<String>,
    pub(super) is_sha256: bool,
    pub(super) git: Git,
}

impl Repository {
    /// The one that `path` lies in.
    pub fn find(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            // What is no directory has no repository; git would only say that it cannot go there.
            std::fs::metadata(path).context(|| format!("{}", path.display()))?;
            return Err(WorkspaceError::NotRepository { path: path.to_owned() });
        }
        let here = Git::at(path);
        let args = [
            "rev-parse",
            "--is-bare-repository",
            "--is-inside-git-dir",
            "--show-object-format",
            "--absolute-git-dir",
        ];
        let found = here.output(&args, &[])?;
        if !found.status.success() {
            let text = String::from_utf8_lossy(&found.stderr);
            return Err(match text.contains("not a git repository") {
                true => WorkspaceError::NotRepository { path: path.to_owned() },
                false => said(&args, &found.stderr),
            });
        }
        let mut lines = found.stdout.splitn(4, |byte| *byte == b'\n');
        let mut next = || lines.next().unwrap_or_default();
        let (bare, inside, format, git_dir) = (next(), next(), next(), next());
        if bare == b"true" || inside == b"true" {
            return Err(WorkspaceError::Bare { path: path.to_owned() });
        }
        let is_sha256 = format == b"sha256";
        let git_dir = as_path(git_dir);
        let root = as_path(&here.run(&["rev-parse", "--show-toplevel"])?);
        let git = Git::at(&root);
        // In one go, for every command in a workspace asks; the path is last, for it may have any name.
        let args =
            ["rev-parse", "HEAD^{commit}", "--symbolic-full-name", "HEAD", "--git-common-dir"];
        let found = git.output(&args, &[])?;
        if !found.status.success() {
            return Err(WorkspaceError::NoCommits { root });
        }
        let mut lines = found.stdout.splitn(3, |byte| *byte == b'\n');
        let mut next = || lines.next().unwrap_or_default();
        let (head, branch, common_dir) = (line(next()), line(next()), as_path(next()));
        let branch = branch.strip_prefix("refs/heads/").map(str::to_owned);
        let common_dir = root.join(common_dir);
        Ok(Self { root, git_dir, common_dir, head, branch, is_sha256, git })
    }

    /// Whether git is in the middle of something that the guest could not go on with.
    pub(super) fn check_settled(&self) -> Result<()> {
        let at = |name: &&(&str, &'static str)| self.git_dir.join(name.0).exists();
        match IN_PROGRESS.iter().find(at) {
            Some((_, what)) => Err(WorkspaceError::InProgress { root: self.root.clone(), what }),
            None => Ok(()),
        }
    }

    /// Of a name of git's, as bytes.
    pub(super) fn object_bytes(&self) -> usize {
        self.head.len() / 2
    }

    pub(super) fn revision(&self, revision: &str) -> Result<String> {
        commit(&self.git, revision)?.ok_or_else(|| WorkspaceError::NoRevision {
            root: self.root.clone(),
            revision: revision.to_owned(),
        })
    }

    pub(super) fn check_branch(&self, branch: &str) -> Result<()> {
        let output = self.git.output(&["check-ref-format", "--branch", branch], &[])?;
        match output.status.success() && line(&output.stdout) == branch {
            true => Ok(()),
            false => Err(WorkspaceError::BadBranch { branch: branch.to_owned() }),
        }
    }

    /// From a commit that HEAD was at to the one that it is at.
    pub(super) fn head_moved(&self, from: &str) -> Result<Option<HeadMoved>> {
        if from == self.head {
            return Ok(None);
        }
        let is_below = self.git.output(&["merge-base", "--is-ancestor", from, &self.head], &[])?;
        let commits = match is_below.status.success() {
            true => {
                let range = format!("{from}..{}", self.head);
                line(&self.git.run(&["rev-list", "--count", &range])?).parse().ok()
            }
            false => None,
        };
        Ok(Some(HeadMoved { from: from.to_owned(), to: self.head.clone(), commits }))
    }

    /// Git's configuration as it holds here: names in lower case, the last of two counts.
    pub(super) fn configuration(&self) -> Result<HashMap<String, String>> {
        let listed = self.git.run(&["config", "--list", "-z"])?;
        let pairs = names(&listed).map(|pair| {
            let pair = line(pair);
            // One without a value is there, which means yes.
            let (name, value) = pair.split_once('\n').unwrap_or((&pair, "true"));
            (name.to_owned(), value.to_owned())
        });
        Ok(pairs.collect())
    }
}

fn commit(git: &Git, revision: &str) -> Result<Option<String>> {
    let revision = format!("{revision}^{{commit}}");
    let args = ["rev-parse", "-q", "--verify", "--end-of-options", &revision];
    let output = git.output(&args, &[])?;
    Ok(output.status.success().then(|| line(&output.stdout)))
}

/// Of a line that git printed.
fn as_path(output: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(output.strip_suffix(b"\n").unwrap_or(output)))
}
