//! What the guest has changed by itself. It names what is new and knows nothing of what is ignored;
//! git here does, by the rules in force for the tree: directories that are ignored are never entered.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use banger_agent::contract::workspace::{Answer, Ask, Change, How, Moved, pieces};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{Context as _, Result, WorkspaceError};
use super::git::{Git, joined, names};
use super::index;
use super::repository::Repository;
use super::talk::{Talk, check};
use crate::model::{Digest, show_path};

/// Lines that a refusal has.
const NAMED: usize = 20;
const INDEX: &[u8] = b".git/index";
/// Of a million files.
const MAX_INDEX: u64 = 256 << 20;

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Directories taken apart, and what is ignored left out.
    pub(super) files: Vec<Change>,
    pub(super) moved: Vec<Moved>,
    /// Git there has written its index, be it that it only has looked.
    pub(super) index_written: bool,
    /// What is staged there is not what was sent.
    pub(super) staged: bool,
}

/// Files with rules of what is ignored, in a directory of their own.
#[derive(Debug)]
pub(super) struct Rules {
    dir: tempfile::TempDir,
    git: Git,
}

impl Rules {
    pub(super) fn new(repository: &Repository) -> Result<Self> {
        let dir = tempfile::tempdir().context(|| "make a directory for rules".into())?;
        let git = Git::at(dir.path())
            .with("GIT_DIR", &repository.git_dir)
            .with("GIT_WORK_TREE", dir.path());
        Ok(Self { dir, git })
    }

    pub(super) fn is_one(path: &[u8]) -> bool {
        path == b".gitignore" || path.ends_with(b"/.gitignore")
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.dir.path().join(OsStr::from_bytes(path)).is_file()
    }

    /// For the rules of that path.
    pub(super) fn create(&self, path: &[u8]) -> Result<fs::File> {
        let file = self.dir.path().join(OsStr::from_bytes(path));
        let what = || format!("keep the rules of {}", show_path(path));
        fs::create_dir_all(file.parent().unwrap_or_else(|| Path::new("/"))).context(what)?;
        fs::File::create(&file).context(what)
    }

    fn ignored(&self, changes: &[Change]) -> Result<HashSet<Vec<u8>>> {
        for change in changes.iter().filter(|change| change.how == How::NewDirectory) {
            // A rule may be for directories only, and git looks.
            let directory = self.dir.path().join(OsStr::from_bytes(&change.path));
            fs::create_dir_all(&directory).context(|| format!("make {}", directory.display()))?;
        }
        let paths = joined(changes.iter().map(|change| change.path.as_slice()));
        let args = ["check-ignore", "-z", "--stdin", "--no-index"];
        let output = self.git.output(&args, &paths)?;
        // 1: none is.
        match output.status.code() {
            Some(0 | 1) => Ok(names(&output.stdout).map(<[u8]>::to_vec).collect()),
            _ => Err(super::git::said(&args, &output.stderr)),
        }
    }
}

pub(super) async fn find<S: AsyncRead + AsyncWrite>(
    talk: &mut Talk<S>,
    rules: &Rules,
) -> Result<Changes> {
    let mut changes = Changes::default();
    talk.each(&Ask::Changes, |answer| {
        match answer {
            Answer::Changed(more) => changes.files.extend(more),
            Answer::Moved(more) => changes.moved.extend(more),
            _ => {}
        }
        Ok(())
    })
    .await?;
    check(changes.files.iter().map(|change| &change.path))?;
    let files = changes.files.len();
    changes.files.retain(|change| change.path != INDEX);
    changes.index_written = changes.files.len() < files;
    let is_new = |change: &Change| matches!(change.how, How::New | How::NewDirectory);
    let (mut new, known): (Vec<_>, Vec<_>) = changes.files.into_iter().partition(is_new);
    changes.files = known;
    while !new.is_empty() {
        let ignored = rules.ignored(&new)?;
        new.retain(|change| !ignored.contains(&change.path));
        let is_directory = |change: &Change| change.how == How::NewDirectory;
        let (directories, files): (Vec<_>, Vec<_>) = new.into_iter().partition(is_directory);
        changes.files.extend(files);
        new = vec![];
        let directories: Vec<_> = directories.into_iter().map(|change| change.path).collect();
        for piece in pieces(directories, Vec::len) {
            talk.each(&Ask::List(piece), |answer| {
                if let Answer::Changed(more) = answer {
                    new.extend(more);
                }
                Ok(())
            })
            .await?;
        }
        check(new.iter().map(|change| &change.path))?;
    }
    changes.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

impl Changes {
    /// Where nothing else has changed: is the index of another meaning than the one that was sent?
    pub(super) async fn look_at_index<S: AsyncRead + AsyncWrite>(
        &mut self,
        talk: &mut Talk<S>,
        sent: Digest,
        object: usize,
    ) -> Result<()> {
        if !self.index_written || !self.is_empty() {
            return Ok(());
        }
        let what = || "keep the guest's index".to_owned();
        let mut file = tempfile::tempfile().context(what)?;
        let to = file.try_clone().context(what)?;
        let mut to = Some(to);
        talk.read(&[INDEX.to_vec()], |_, _| {
            to.take().ok_or(WorkspaceError::OutOfTurn("an index twice"))
        })
        .await?;
        let mut index = vec![];
        file.rewind().context(what)?;
        file.take(MAX_INDEX).read_to_end(&mut index).context(what)?;
        self.staged = index::staged(&index, object) != Some(sent);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.moved.is_empty() && !self.staged
    }

    /// As `git status` would tell it.
    pub(super) fn lines(&self) -> Vec<String> {
        let moved = self.moved.iter().map(|moved| {
            let short = |value: &Option<Vec<u8>>| {
                let Some(value) = value else { return "nothing".to_owned() };
                let value = show_path(value);
                match value.len() {
                    40 | 64 => value.get(..7).unwrap_or_default().to_owned(),
                    _ => value,
                }
            };
            let (was, is) = (short(&moved.was), short(&moved.is));
            format!("moved: {} from {was} to {is}", show_path(&moved.name))
        });
        let files = self.files.iter().map(|change| {
            let how = match change.how {
                How::Modified => "modified",
                How::Deleted => "deleted",
                How::New | How::NewDirectory => "new",
            };
            format!("{how}: {}", show_path(&change.path))
        });
        let staged = "staged: what git has in its index there, and neither a file nor a commit has";
        let staged = self.staged.then(|| staged.to_owned());
        let mut lines: Vec<String> = moved.chain(files).chain(staged).collect();
        if lines.len() > NAMED {
            let more = lines.len() - NAMED;
            lines.truncate(NAMED);
            lines.push(format!("and {more} more"));
        }
        lines
    }
}
