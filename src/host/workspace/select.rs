//! Which files of a repository are meant: what git tracks, and of the rest what was asked for, without
//! what is excluded.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;

use super::error::{Context as _, Result, WorkspaceError};
use super::git::names;
use super::repository::Repository;
use crate::model::{Selection, WorkspaceMode};

/// In the repository's root: patterns as in `.gitignore` of what never travels.
const EXCLUDES: &str = ".bangerignore";
const GITLINK: &[u8] = b"160000";

#[derive(Debug, Default)]
pub(super) struct Selected {
    /// By path; true: tracked.
    pub(super) files: BTreeMap<Vec<u8>, bool>,
    /// Tracked, and not to be sent all the same; or not checked out.
    pub(super) left_out: Vec<Vec<u8>>,
    /// Not tracked, not ignored, and not asked for.
    pub(super) untracked_left: usize,
    /// Repositories within that are no submodules.
    pub(super) nested: Vec<Vec<u8>>,
    /// Submodules of which nothing is here.
    pub(super) absent: Vec<Vec<u8>>,
}

pub(super) fn select(
    repository: &Repository,
    selection: &Selection,
    mode: WorkspaceMode,
    count_untracked: bool,
) -> Result<Selected> {
    let excludes = Excludes::new(repository, selection)?;
    let git = &repository.git;
    let mut selected = Selected::default();
    let (mut unmerged, mut submodules) = (vec![], vec![]);
    // `H 100644 <object> 0\t<path>`
    for entry in names(&git.run(&["ls-files", "-z", "-t", "-s"])?) {
        let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
        let (head, path) = (entry.get(..tab).unwrap_or_default(), &entry[tab + 1..]);
        let words: Vec<&[u8]> = head.split(|byte| *byte == b' ').collect();
        let &[tag, mode, _, stage] = words.as_slice() else { continue };
        match () {
            () if stage != b"0" => unmerged.push(path.to_vec()),
            () if mode == GITLINK => submodules.push(path.to_vec()),
            () if tag == b"S" => selected.left_out.push(path.to_vec()),
            () => drop(selected.files.insert(path.to_vec(), true)),
        }
    }
    unmerged.dedup();
    let root = || repository.root.clone();
    if !unmerged.is_empty() {
        return Err(WorkspaceError::Unmerged { root: root(), paths: unmerged });
    }
    if !submodules.is_empty() {
        if mode == WorkspaceMode::Shallow {
            return Err(WorkspaceError::Submodules { root: root(), paths: submodules });
        }
        for path in names(&git.run(&["ls-files", "-z", "--recurse-submodules"])?) {
            let is_inside = |module: &Vec<u8>| {
                path.strip_prefix(module.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
            };
            if submodules.iter().any(is_inside) {
                selected.files.insert(path.to_vec(), true);
            }
        }
        let is_absent = |module: &Vec<u8>| {
            let inside = [module.as_slice(), b"/"].concat();
            let first = selected.files.range(inside.clone()..).next();
            !first.is_some_and(|(path, _)| path.starts_with(&inside))
        };
        let absent: Vec<_> = submodules.into_iter().filter(is_absent).collect();
        // Or git there would take them for deleted.
        selected.left_out.extend(absent.iter().cloned());
        selected.absent = absent;
    }
    if selection.include_untracked || count_untracked {
        let args = excludes.args(&["ls-files", "-z", "-o", "--exclude-standard"]);
        let output = git.run(&refs(&args))?;
        // A name that ends in a slash is another repository.
        let (nested, others): (Vec<&[u8]>, Vec<&[u8]>) =
            names(&output).partition(|path| path.ends_with(b"/"));
        selected.nested = nested.into_iter().map(<[u8]>::to_vec).collect();
        match selection.include_untracked {
            true => selected.files.extend(others.iter().map(|path| (path.to_vec(), false))),
            false => selected.untracked_left = others.len(),
        }
    }
    include_ignored(repository, selection, &excludes, &mut selected)?;
    if !excludes.0.is_empty() {
        for path in names(&git.run(&refs(&excludes.args(&["ls-files", "-z", "-c", "-i"])))?) {
            if selected.files.remove(path).is_some() {
                selected.left_out.push(path.to_vec());
            }
        }
    }
    Ok(selected)
}

fn include_ignored(
    repository: &Repository,
    selection: &Selection,
    excludes: &Excludes,
    selected: &mut Selected,
) -> Result<()> {
    if selection.include_ignored.is_empty() {
        return Ok(());
    }
    let mut args: Vec<String> =
        ["ls-files", "-z", "-o", "-i", "--exclude-standard", "--"].map(str::to_owned).into();
    args.extend(selection.include_ignored.iter().map(|glob| format!(":(glob){glob}")));
    let output = repository.git.run(&refs(&args))?;
    let unwanted = match excludes.0.is_empty() {
        true => vec![],
        false => repository.git.run(&refs(&excludes.args(&["ls-files", "-z", "-o", "-i"])))?,
    };
    let unwanted: HashSet<&[u8]> = names(&unwanted).collect();
    let wanted = names(&output).filter(|path| !path.ends_with(b"/") && !unwanted.contains(path));
    selected.files.extend(wanted.map(|path| (path.to_vec(), false)));
    Ok(())
}

/// Arguments for `ls-files`.
struct Excludes(Vec<String>);

impl Excludes {
    fn new(repository: &Repository, selection: &Selection) -> Result<Self> {
        let mut args = vec![];
        let file: PathBuf = repository.root.join(EXCLUDES);
        match fs::symlink_metadata(&file) {
            Ok(meta) if meta.is_file() => {
                let text = fs::read_to_string(&file).context(|| format!("read {EXCLUDES}"))?;
                let patterns =
                    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
                args.extend(patterns.flat_map(|line| ["-x".to_owned(), line.to_owned()]));
            }
            // It would lead out of the repository.
            Ok(_) => {
                let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
                return Err(WorkspaceError::Io { what: format!("{EXCLUDES} is no file"), source });
            }
            Err(_) => {}
        }
        args.extend(selection.exclude.iter().flat_map(|glob| ["-x".to_owned(), glob.clone()]));
        Ok(Self(args))
    }

    fn args(&self, first: &[&str]) -> Vec<String> {
        first.iter().map(|word| (*word).to_owned()).chain(self.0.iter().cloned()).collect()
    }
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
