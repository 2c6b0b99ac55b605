//! The guest's tree as a patch. The tree is put together in an index of its own, from the prepared
//! commit and the files that may differ from it.

use std::collections::BTreeSet;

use banger_agent::contract::workspace::{How, Kind};

use super::{Work, is_git};
use crate::host::workspace::error::Result;
use crate::host::workspace::git::{Git, line, names};

const GITLINK: &[u8] = b"160000 ";

#[derive(Debug)]
pub struct Patch {
    /// The commit that it applies to.
    pub base: String,
    pub bytes: Vec<u8>,
    /// As `git diff --stat` prints it.
    pub stat: Vec<u8>,
    pub files: usize,
    /// Of the guest, past the base.
    pub commits: u64,
}

impl Work {
    /// `base`: another commit than the prepared one, of the host or of the guest.
    pub fn patch(&self, base: Option<&str>) -> Result<Patch> {
        let git = self.git();
        let tree = self.tree(&git)?;
        let base = match base {
            Some(base) => self.commit(&git, base)?,
            None => self.base.clone(),
        };
        // What is text and what is binary is not the guest's to say either.
        let attributed = self.attributed();
        let diff = |options: &[&str]| {
            let args = ["diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-renames"];
            attributed.run(&[args.as_slice(), options, &[&base, &tree]].concat())
        };
        let bytes =
            diff(&["-p", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/"])?;
        let stat = diff(&["--stat"])?;
        let files = names(&diff(&["--name-only", "-z"])?).count();
        let commits = match &self.head {
            Some(head) => {
                let range = format!("{base}..{head}");
                let count = git.output(&["rev-list", "--count", &range], &[])?;
                line(&count.stdout).parse().unwrap_or(0)
            }
            None => 0,
        };
        Ok(Patch { base, bytes, stat, files, commits })
    }

    /// The host's git, with objects, index and tree of its own.
    pub(super) fn git(&self) -> Git {
        let at = |name: &str| self.dir.path().join(name);
        Git::at(self.dir.path())
            .with("GIT_DIR", &self.repository.git_dir)
            .with("GIT_OBJECT_DIRECTORY", at("objects"))
            .with("GIT_INDEX_FILE", at("index"))
            .with("GIT_WORK_TREE", at("tree"))
    }

    fn commit(&self, git: &Git, revision: &str) -> Result<String> {
        let commit = format!("{revision}^{{commit}}");
        let found =
            git.output(&["rev-parse", "-q", "--verify", "--end-of-options", &commit], &[])?;
        match found.status.success() {
            true => Ok(line(&found.stdout)),
            false => self.repository.revision(revision),
        }
    }

    fn tree(&self, git: &Git) -> Result<String> {
        git.run(&["read-tree", &self.base])?;
        let staged = git.run(&["ls-files", "-s", "-z"])?;
        let modules: Vec<&[u8]> = names(&staged)
            .filter(|entry| entry.starts_with(GITLINK))
            .filter_map(|entry| entry.splitn(2, |byte| *byte == b'\t').nth(1))
            .collect();
        let is_inside = |path: &[u8]| {
            modules.iter().any(|module| {
                path.strip_prefix(*module).is_some_and(|rest| rest.first() == Some(&b'/'))
            })
        };
        let gone = self.kept.values().filter(|entry| entry.kind == Kind::Gone);
        let deleted = self.changes.files.iter().filter(|change| change.how == How::Deleted);
        let mut paths: BTreeSet<&[u8]> = gone.map(|entry| entry.path.as_slice()).collect();
        paths.extend(deleted.map(|change| change.path.as_slice()));
        paths.extend(self.contents.keys().map(Vec::as_slice));
        paths.retain(|path| !is_inside(path) && !is_git(path));
        let blobs = self.blobs(&paths)?;
        let nothing = format!("0 {}", "0".repeat(self.base.len())).into_bytes();
        let entries = paths.into_iter().fold(vec![], |mut all, path| {
            all.extend_from_slice(blobs.get(path).unwrap_or(&nothing));
            all.push(b'\t');
            all.extend_from_slice(path);
            all.push(0);
            all
        });
        git.feed(&["update-index", "-z", "--replace", "--index-info"], &entries)?;
        Ok(line(&git.run(&["write-tree"])?))
    }
}
