//! What can be wrong with a repository, a guest's workspace, or the way between them.

use std::io;
use std::path::PathBuf;

use banger_agent::contract::workspace::{Refusal, TalkError};

use crate::model::show_path;

/// Paths that an error names.
const NAMED: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    #[error("git is not installed on this host")]
    GitMissing,
    #[error("run git {command}")]
    GitRun { command: String, source: io::Error },
    #[error("git {command}: {said}")]
    GitSaid { command: String, said: String },
    #[error("{} is in no git repository", path.display())]
    NotRepository { path: PathBuf },
    #[error("{} is a bare repository: it has no files to work on", path.display())]
    Bare { path: PathBuf },
    #[error("the repository {} has no commits yet", root.display())]
    NoCommits { root: PathBuf },
    #[error("the repository {} is in the middle of a {what}", root.display())]
    InProgress { root: PathBuf, what: &'static str },
    #[error("{} is a partial clone and lacks some of its own history", root.display())]
    Partial { root: PathBuf, source: Box<WorkspaceError> },
    #[error("unmerged in {}: {}", root.display(), named(paths))]
    Unmerged { root: PathBuf, paths: Vec<Vec<u8>> },
    #[error("{} has submodules: {}", root.display(), named(paths))]
    Submodules { root: PathBuf, paths: Vec<Vec<u8>> },
    #[error("cannot read {}", named(paths))]
    Unreadable { paths: Vec<Vec<u8>> },
    #[error("{revision:?} names no commit of {}", root.display())]
    NoRevision { root: PathBuf, revision: String },
    #[error("{branch:?} cannot be the name of a branch")]
    BadBranch { branch: String },
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("{} changed while it was sent", show_path(path))]
    Changed { path: Vec<u8> },
    #[error("the guest ended the transfer")]
    Ended,
    #[error("the guest does not make sense")]
    Talk(#[source] TalkError),
    #[error("the guest said {0} out of turn")]
    OutOfTurn(&'static str),
    #[error("in the guest: {message}")]
    Refused { code: Refusal, message: String },
    #[error("{guest_path} is in use in the guest: {what}")]
    InUse { guest_path: String, what: String },
    #[error("{guest_path} was changed in the guest since it was prepared")]
    GuestChanged { guest_path: String, lines: Vec<String> },
    #[error("{guest_path} is no prepared workspace")]
    NotPrepared { guest_path: String },
    #[error("the guest's changes do not apply to {}", root.display())]
    DoesNotApply { root: PathBuf, lines: Vec<String> },
    #[error("a branch {branch:?} exists in {} and stands elsewhere", root.display())]
    BranchTaken { root: PathBuf, branch: String },
}

pub(super) type Result<T> = std::result::Result<T, WorkspaceError>;

fn named(paths: &[Vec<u8>]) -> String {
    let mut names: Vec<_> = paths.iter().take(NAMED).map(|path| show_path(path)).collect();
    if paths.len() > NAMED {
        names.push(format!("and {} more", paths.len() - NAMED));
    }
    names.join(", ")
}

/// Names the operation and the object of an error of the system.
pub(super) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| WorkspaceError::Io { what: what(), source: error.into() })
    }
}

impl From<TalkError> for WorkspaceError {
    fn from(error: TalkError) -> Self {
        Self::Talk(error)
    }
}
