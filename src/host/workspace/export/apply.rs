//! What the guest changed since it was prepared, in the host's tree: taken as it is where the host has
//! what was sent, merged three-way where both have changed. One conflict, and nothing is changed. The
//! host's index and branches are not touched.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use banger_agent::contract::workspace::{How, Kind};
use sha2::{Digest as _, Sha256};

use super::place::{self, Change};
use super::{Got, Work, is_git};
use crate::host::workspace::error::{Context as _, Result, WorkspaceError};
use crate::host::workspace::scan::{Hashed, Root};
use crate::model::{FileStat, show_path};

#[derive(Debug, Default)]
pub struct Applied {
    pub written: Vec<Vec<u8>>,
    pub removed: Vec<Vec<u8>>,
    /// Of the written ones.
    pub merged: usize,
}

/// What is at a path, as far as a comparison goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Nothing,
    File { hash: [u8; 32], runs: bool },
    Link { hash: [u8; 32] },
}

impl Work {
    pub fn apply(&self) -> Result<Applied> {
        let root = Root::open(&self.repository.root)?;
        let beside =
            tempfile::Builder::new().prefix(".banger-apply-").tempdir_in(&self.repository.root);
        let beside = beside.context(|| "make a directory beside the tree".into())?;
        let mut changes = vec![];
        let (mut applied, mut conflicts) = (Applied::default(), vec![]);
        for change in self.changes.files.iter().filter(|change| !is_git(&change.path)) {
            let path = change.path.as_slice();
            let got = self.contents.get(path).filter(|_| change.how != How::Deleted);
            let (theirs, ours) = (state_of(got)?, self.now(&root, path));
            let Some(ours) = ours else {
                conflicts.push(format!("in the way: {}", show_path(path)));
                continue;
            };
            if ours == theirs {
                continue;
            }
            let new = beside.path().join(format!("new-{}", changes.len()));
            if ours == self.sent(path) {
                match got {
                    Some(got) => lay(got, &new)?,
                    None => {
                        applied.removed.push(path.to_vec());
                        changes.push(Change { path: path.to_vec(), new: None });
                        continue;
                    }
                }
            } else if got.is_some_and(|got| self.merge(&root, path, got, ours, &new)) {
                applied.merged += 1;
            } else {
                conflicts.push(format!("changed on both sides: {}", show_path(path)));
                continue;
            }
            applied.written.push(path.to_vec());
            changes.push(Change { path: path.to_vec(), new: Some(new) });
        }
        if !conflicts.is_empty() {
            let root = self.repository.root.clone();
            return Err(WorkspaceError::DoesNotApply { root, lines: conflicts });
        }
        place::make(&self.repository.root, beside.path(), &changes)?;
        Ok(applied)
    }

    fn sent(&self, path: &[u8]) -> State {
        match self.kept.get(path) {
            Some(entry) if entry.kind == Kind::File => {
                State::File { hash: entry.hash, runs: entry.mode & 0o111 != 0 }
            }
            Some(entry) if entry.kind == Kind::Link => State::Link { hash: entry.hash },
            _ => State::Nothing,
        }
    }

    /// `None`: something that is neither file nor link.
    fn now(&self, root: &Root, path: &[u8]) -> Option<State> {
        let Some(FileStat { is_link, mode, .. }) = root.stat_all(&[path]).pop().flatten() else {
            let there = root.is_there(path);
            return (!there).then_some(State::Nothing);
        };
        match root.hash_all(&[(path, is_link)]).pop()? {
            Hashed::Content { hash, .. } if is_link => Some(State::Link { hash: hash.0 }),
            Hashed::Content { hash, .. } => {
                Some(State::File { hash: hash.0, runs: mode & 0o111 != 0 })
            }
            Hashed::Gone => Some(State::Nothing),
            Hashed::Unreadable => None,
        }
    }

    /// False: they do not go together, or what they come from is not known.
    fn merge(&self, root: &Root, path: &[u8], got: &Got, ours: State, to: &Path) -> bool {
        let known = self.kept.get(path).is_some_and(|e| e.committed && e.kind == Kind::File);
        let State::File { runs, .. } = ours else { return false };
        if !known || got.kind != Kind::File {
            return false;
        }
        self.merge_files(root, path, got, runs, to).unwrap_or(false)
    }

    fn merge_files(
        &self,
        root: &Root,
        path: &[u8],
        got: &Got,
        runs: bool,
        to: &Path,
    ) -> Result<bool> {
        let what = || format!("merge {}", show_path(path));
        let at = |name: &str| self.dir.path().join(name);
        let (ours, base): (PathBuf, PathBuf) = (at("ours"), at("base"));
        let mut file = root.open_file(path).map_err(io::Error::from).context(what)?;
        let mut copy = fs::File::create(&ours).context(what)?;
        io::copy(&mut file, &mut copy).context(what)?;
        // `git show` takes the path as bytes only from a list.
        let spec = [self.base.as_bytes(), b":", path].concat();
        let Ok(spec) = String::from_utf8(spec) else { return Ok(false) };
        let git = &self.repository.git;
        fs::write(&base, git.run(&["cat-file", "blob", &spec])?).context(what)?;
        let files = [&ours, &base, &got.file].map(|file| file.display().to_string());
        let args = ["merge-file", "-p", "-q", &files[0], &files[1], &files[2]];
        let merged = git.output(&args, &[])?;
        if !merged.status.success() {
            return Ok(false);
        }
        fs::write(to, merged.stdout).context(what)?;
        let sent = self.kept.get(path).map_or(0, |entry| entry.mode);
        let changed = (sent & 0o111 != 0) != (got.mode & 0o111 != 0);
        permit(to, if changed { got.mode & 0o111 != 0 } else { runs }).context(what)?;
        Ok(true)
    }
}

fn state_of(got: Option<&Got>) -> Result<State> {
    let Some(got) = got else { return Ok(State::Nothing) };
    let what = || format!("read {}", got.file.display());
    let hash = Sha256::digest(fs::read(&got.file).context(what)?).into();
    Ok(match got.kind {
        Kind::Link => State::Link { hash },
        _ => State::File { hash, runs: got.mode & 0o111 != 0 },
    })
}

fn lay(got: &Got, to: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStringExt as _;
    let what = || format!("lay out {}", to.display());
    if got.kind == Kind::Link {
        let target = fs::read(&got.file).context(what)?;
        return symlink(std::ffi::OsString::from_vec(target), to).context(what);
    }
    fs::copy(&got.file, to).context(what)?;
    permit(to, got.mode & 0o111 != 0).context(what)
}

/// As git gives modes.
fn permit(file: &Path, runs: bool) -> io::Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))
}
