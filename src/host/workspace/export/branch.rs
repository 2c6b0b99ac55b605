//! The guest's commits as a branch of the host, with author, date and message as they are. They come
//! from a bare repository made for it, by a fetch that checks every object.

use std::fs;

use super::Work;
use crate::host::workspace::error::{Context as _, Result, WorkspaceError};
use crate::host::workspace::git::{line, said};

#[derive(Debug)]
pub struct Branched {
    pub head: String,
    /// Past the prepared commit.
    pub commits: u64,
}

impl Work {
    /// A branch there is goes on if the guest's builds on it; else it stays.
    pub fn branch(&self, name: &str) -> Result<Branched> {
        self.repository.check_branch(name)?;
        let Some(head) = &self.head else {
            return Err(WorkspaceError::OutOfTurn("no commit"));
        };
        let bare = self.dir.path().join("bare");
        let what = || "make a repository of the guest's commits".to_owned();
        for directory in ["refs/heads", "objects/info"] {
            fs::create_dir_all(bare.join(directory)).context(what)?;
        }
        let objects = self.dir.path().join("objects");
        let format = if self.repository.is_sha256 {
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
        } else {
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        };
        for (file, text) in [
            ("HEAD", "ref: refs/heads/guest\n".to_owned()),
            ("refs/heads/guest", format!("{head}\n")),
            ("objects/info/alternates", format!("{}\n", objects.display())),
            ("config", format.to_owned()),
        ] {
            fs::write(bare.join(file), text).context(what)?;
        }
        let refspec = format!("refs/heads/guest:refs/heads/{name}");
        let bare = bare.display().to_string();
        let args = [
            "-c",
            "fetch.fsckObjects=true",
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
            "fetch",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            &bare,
            &refspec,
        ];
        let fetched = self.repository.git.output(&args, &[])?;
        if !fetched.status.success() {
            let text = String::from_utf8_lossy(&fetched.stderr);
            if text.contains("non-fast-forward") || text.contains("checked out") {
                let (root, branch) = (self.repository.root.clone(), name.to_owned());
                return Err(WorkspaceError::BranchTaken { root, branch });
            }
            return Err(said(&["fetch"], &fetched.stderr));
        }
        let range = format!("{}..{head}", self.base);
        let commits = self.repository.git.run(&["rev-list", "--count", &range])?;
        Ok(Branched { head: head.clone(), commits: line(&commits).parse().unwrap_or(0) })
    }
}
