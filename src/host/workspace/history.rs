//! Git's own files for the guest, made here so that the guest needs no git: a pack of what it has not
//! got, HEAD and branches, a configuration, and the index as it is.
//!
//! The index is the host's to the byte. Its stat is good in the guest, for files get their times and
//! sizes there, and the configuration tells git to look at nothing else.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Context as _, Result, WorkspaceError};
use super::git::{Git, joined};
use super::plan::Plan;
use crate::model::{Digest, FileStat, WorkspaceMode};

/// What makes an index depend on other files than itself.
const INDEX_SETTINGS: [&str; 3] = ["core.splitindex", "index.sparse", "core.sparsecheckoutcone"];

/// Files in a directory of their own, which goes with the value.
#[derive(Debug)]
pub(super) struct History {
    pub(super) files: Vec<GitFile>,
    /// By the index among them.
    pub(super) staged: Option<Digest>,
    _dir: tempfile::TempDir,
}

#[derive(Debug)]
pub(super) struct GitFile {
    /// In the guest, relative to the workspace.
    pub(super) path: Vec<u8>,
    pub(super) file: PathBuf,
    pub(super) stat: FileStat,
}

/// `have`: commits that the guest was sent before.
pub(super) fn collect(plan: &Plan, have: &[String]) -> Result<History> {
    let dir = tempfile::tempdir().context(|| "make a directory for git's files".into())?;
    let mut history = History { files: vec![], staged: None, _dir: dir };
    let dir = history._dir.path().to_owned();
    let configuration = plan.repository.configuration()?;
    let packs = packs(plan, have, &dir).map_err(|error| {
        // What its server has it does not fetch for us: that takes as long as the network likes.
        let is_promised = |name: &String| {
            name == "extensions.partialclone"
                || (name.starts_with("remote.") && name.ends_with(".promisor"))
        };
        match configuration.keys().any(is_promised) {
            true => {
                let root = plan.repository.root.clone();
                WorkspaceError::Partial { root, source: Box::new(error) }
            }
            false => error,
        }
    });
    for name in packs? {
        history.add(&format!(".git/objects/pack/{name}"), &dir.join(&name))?;
    }
    let head = match &plan.branch {
        Some(branch) => {
            history.write(&dir, &format!(".git/refs/heads/{branch}"), &plan.commit)?;
            format!("ref: refs/heads/{branch}")
        }
        None => plan.commit.clone(),
    };
    history.write(&dir, ".git/HEAD", &head)?;
    if plan.mode == WorkspaceMode::FullCopy {
        let refs = plan.repository.git.run(&[
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "refs/heads",
            "refs/tags",
            "refs/remotes",
        ])?;
        let refs = String::from_utf8_lossy(&refs).into_owned();
        history.write(&dir, ".git/packed-refs", refs.trim_end())?;
    }
    history.write(&dir, ".git/config", config(plan, &configuration).trim_end())?;
    let is_plain = !INDEX_SETTINGS.iter().any(|name| configuration.contains_key(*name));
    index(plan, is_plain, &dir.join("index"))?;
    let staged = fs::read(dir.join("index")).context(|| "read the index".into())?;
    history.staged = super::index::staged(&staged, plan.repository.object_bytes());
    history.add(".git/index", &dir.join("index"))?;
    let repository = &plan.repository;
    for (from, name) in [
        (&repository.common_dir, "shallow"),
        (&repository.common_dir, "info/exclude"),
        (&repository.git_dir, "info/sparse-checkout"),
    ] {
        let file = from.join(name);
        if file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            history.add(&format!(".git/{name}"), &file)?;
        }
    }
    Ok(history)
}

impl History {
    fn add(&mut self, path: &str, file: &Path) -> Result<()> {
        let what = || format!("look at {}", file.display());
        let stat = rustix::fs::lstat(file).context(what)?;
        let Some(stat) = super::scan::file_stat(&stat) else { return Ok(()) };
        let stat = FileStat { mode: 0o644, ..stat };
        self.files.push(GitFile { path: path.into(), file: file.to_owned(), stat });
        Ok(())
    }

    fn write(&mut self, dir: &Path, path: &str, line: &str) -> Result<()> {
        let file = dir.join(format!("file-{}", self.files.len()));
        fs::write(&file, format!("{line}\n")).context(|| format!("write {}", file.display()))?;
        self.add(path, &file)
    }
}

/// Names of files in `dir`; none if the guest has everything.
fn packs(plan: &Plan, have: &[String], dir: &Path) -> Result<Vec<String>> {
    let git = &plan.repository.git;
    let mut wanted = format!("{}\n", plan.commit);
    let base = dir.join("pack").display().to_string();
    // New deltas cost more time than they save on the way to a neighbour; those there are are kept.
    let mut args = vec!["pack-objects", "-q", "--revs", "--non-empty", "--window=0"];
    args.extend(["--compression=1", "--delta-base-offset"]);
    if plan.mode == WorkspaceMode::FullCopy {
        args.push("--all");
    }
    for commit in have {
        // A commit that is gone here proves nothing of what the guest has.
        let object = format!("{commit}^{{commit}}");
        if git.output(&["cat-file", "-e", &object], &[])?.status.success() {
            wanted.push_str(&format!("^{commit}\n"));
        }
    }
    // What is staged is in no commit.
    let staged = ["diff-index", "--cached", "--raw", "--no-abbrev", "--no-renames", &plan.commit];
    let staged = String::from_utf8_lossy(&git.run(&staged)?).into_owned();
    // `:100644 100644 <was> <is> M\t<path>`
    let blobs = staged.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (mode, _, is) = (words.next()?, words.next()?, words.next()?);
        (mode != "160000" && is.bytes().any(|digit| digit != b'0')).then_some(is)
    });
    blobs.for_each(|blob| wanted.push_str(&format!("{blob}\n")));
    args.push(&base);
    let made = git.feed(&args, wanted.as_bytes())?;
    let hashes = String::from_utf8_lossy(&made).into_owned();
    let files =
        hashes.lines().flat_map(|hash| [format!("pack-{hash}.pack"), format!("pack-{hash}.idx")]);
    Ok(files.collect())
}

fn config(plan: &Plan, configuration: &HashMap<String, String>) -> String {
    let repository = &plan.repository;
    let mut text = String::from("[core]\n\trepositoryformatversion = ");
    text.push_str(if repository.is_sha256 { "1\n" } else { "0\n" });
    text.push_str("\tbare = false\n\tlogallrefupdates = true\n");
    // Files in the guest have the host's times and sizes and nothing else of their stat.
    text.push_str("\ttrustctime = false\n\tcheckStat = minimal\n");
    let own = [
        ("core.filemode", "filemode", "core"),
        ("core.autocrlf", "autocrlf", "core"),
        ("core.eol", "eol", "core"),
        ("core.symlinks", "symlinks", "core"),
        ("core.sparsecheckout", "sparseCheckout", "core"),
        ("core.sparsecheckoutcone", "sparseCheckoutCone", "core"),
        ("user.name", "name", "user"),
        ("user.email", "email", "user"),
    ];
    let mut section = "core";
    for (name, key, of) in own {
        let Some(value) = configuration.get(name) else { continue };
        if section != of {
            text.push_str(&format!("[{of}]\n"));
            section = of;
        }
        text.push_str(&format!("\t{key} = {}\n", quoted(value)));
    }
    if repository.is_sha256 {
        text.push_str("[extensions]\n\tobjectformat = sha256\n");
    }
    text
}

/// As `git config` reads it.
fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{}\"", escaped.replace('\t', "\\t"))
}

/// `is_plain`: no setting makes it depend on other files.
fn index(plan: &Plan, is_plain: bool, to: &Path) -> Result<()> {
    let repository = &plan.repository;
    let git: Git = repository.git.clone().with("GIT_INDEX_FILE", to);
    let from = repository.git_dir.join("index");
    let what = || "copy the index".to_owned();
    if plan.commit != repository.head || !from.is_file() {
        git.run(&["read-tree", &plan.commit])?;
    } else {
        fs::copy(&from, to).context(what)?;
    }
    if !plan.left_out.is_empty() {
        let paths = joined(plan.left_out.iter().map(Vec::as_slice));
        git.feed(&["update-index", "--skip-worktree", "-z", "--stdin"], &paths)?;
    }
    // The last to write it: else it would be again what the settings say.
    if !is_plain {
        let args = ["-c", "index.sparse=false", "update-index", "--no-split-index"];
        git.run(&[args.as_slice(), &["--force-write-index"]].concat())?;
    }
    // Its own time stamp is what git holds those of its entries against.
    let modified = fs::metadata(&from).and_then(|meta| meta.modified());
    if let Ok(modified) = modified {
        let file = fs::File::options().write(true).open(to).context(what)?;
        file.set_modified(modified).context(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_quoted_for_git() {
        assert_eq!(super::quoted("a \"b\" \\ c\n[x]"), "\"a \\\"b\\\" \\\\ c\\n[x]\"");
    }
}
