//! Whether the host is still as it was sent: a few questions to git, a stat of every file, and a look
//! at the content of the few that stat does not vouch for.

use std::path::Path;

use super::error::{Result, WorkspaceError};
use super::manifest;
use super::repository::Repository;
use super::scan::{Hashed, Root};
use super::select::select;
use crate::model::{Digest, HeadMoved, SeenFile, Staleness, Workspace};

#[derive(Debug)]
pub struct Compared {
    pub staleness: Staleness,
    /// Where HEAD is now, if the repository is there.
    pub head: Option<String>,
}

/// What cannot be compared is unknown and no error: it must not keep a command from running.
pub fn compare(workspace: &Workspace, kept: &[u8]) -> Result<Compared> {
    let unknown = |why: String| Ok(Compared { staleness: Staleness::Unknown(why), head: None });
    let repository = match Repository::find(Path::new(&workspace.host_path)) {
        Ok(repository) => repository,
        Err(WorkspaceError::GitMissing) => return Err(WorkspaceError::GitMissing),
        Err(error) => return unknown(crate::model::chain(&error)),
    };
    if repository.root != Path::new(&workspace.host_path) {
        return unknown(format!("{} is no repository any more", workspace.host_path));
    }
    let Some(manifest) = manifest::decode(kept) else {
        return unknown("what was sent is not on record in a form that is understood".to_owned());
    };
    let moved: Option<HeadMoved> = repository.head_moved(&workspace.head)?;
    let selected = match select(&repository, &workspace.selection, workspace.mode, false) {
        Ok(selected) => selected,
        Err(error) => return unknown(crate::model::chain(&error)),
    };
    let root = Root::open(&repository.root)?;
    let paths: Vec<&[u8]> = selected.files.keys().map(Vec::as_slice).collect();
    let stats = root.stat_all(&paths);
    let seen = selected.files.iter().zip(stats).filter_map(|((path, tracked), stat)| {
        Some(SeenFile { path: path.clone(), tracked: *tracked, stat: stat? })
    });
    let seen: Vec<_> = seen.collect();
    let suspects = manifest.suspects(&seen);
    let wanted: Vec<(&[u8], bool)> = suspects
        .iter()
        .filter_map(|at| seen.get(*at))
        .map(|file| (file.path.as_slice(), file.stat.is_link))
        .collect();
    let hashed = root.hash_all(&wanted);
    let hashes = suspects.into_iter().zip(hashed).filter_map(|(at, hashed)| match hashed {
        Hashed::Content { hash, .. } => Some((at, hash)),
        Hashed::Gone | Hashed::Unreadable => None::<(usize, Digest)>,
    });
    let drift = manifest.drift(&seen, &hashes.collect());
    Ok(Compared { staleness: Staleness::of(moved, drift), head: Some(repository.head) })
}
