//! What the guest itself has changed since the last commit. Stat first, content only where that does
//! not vouch. New directories are named and not entered: the host knows what is ignored in them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use banger_agent::contract::workspace::{Answer, Change, How, Kind, Moved, is_plain, pieces};
use sha2::{Digest as _, Sha256};

use super::fault::{Context as _, Fault, Result};
use super::kept::{Item, Kept, Stat};
use super::place::Place;
use super::refs;
use super::talk::Talk;

pub(super) fn changes(place: &Place, talk: &mut Talk) -> Result<()> {
    let kept = Kept::load(place)?;
    for piece in pieces(found(place, &kept)?, |change| change.path.len() + 16) {
        talk.say(&Answer::Changed(piece))?;
    }
    let moved = moved(&kept, place);
    for piece in pieces(moved, |moved| moved.name.len() + 128) {
        talk.say(&Answer::Moved(piece))?;
    }
    talk.say(&Answer::Done)
}

pub(super) fn list(place: &Place, directories: Vec<Vec<u8>>, talk: &mut Talk) -> Result<()> {
    let mut changes = vec![];
    for directory in directories {
        if !is_plain(&directory) {
            return Err(Fault::path("not a path of the workspace".into()));
        }
        for_each(&place.at(&directory), &directory, |path, is_dir| {
            let how = if is_dir { How::NewDirectory } else { How::New };
            changes.push(Change { path, how });
            Ok(())
        })?;
    }
    for piece in pieces(changes, |change| change.path.len() + 16) {
        talk.say(&Answer::Changed(piece))?;
    }
    talk.say(&Answer::Done)
}

pub(super) fn found(place: &Place, kept: &Kept) -> Result<Vec<Change>> {
    let mut items = HashMap::with_capacity(kept.entries.len());
    let mut directories = HashSet::new();
    for item in &kept.entries {
        let path = item.entry.path.as_slice();
        if path.starts_with(b".git/") || item.entry.kind == Kind::Gone {
            continue;
        }
        items.insert(path, item);
        let mut rest = path;
        while let Some(at) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = rest.get(..at).unwrap_or_default();
            if !directories.insert(rest) {
                break;
            }
        }
    }
    let mut walk = Walk { kept, items, directories, changes: vec![] };
    walk.enter(&place.root, b"")?;
    let Walk { items, mut changes, .. } = walk;
    // What was not met on the way is not there.
    changes.extend(items.into_keys().map(|path| Change { path: path.to_vec(), how: How::Deleted }));
    // Git writes it anew when it only looks at files: the host tells whether that means anything.
    let index = kept.entries.iter().find(|item| item.entry.path == b".git/index");
    if let Some(item) = index
        && as_kept(kept, item, &place.at(&item.entry.path))?.is_none()
    {
        changes.push(Change { path: item.entry.path.clone(), how: How::Modified });
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

struct Walk<'a> {
    kept: &'a Kept,
    items: HashMap<&'a [u8], &'a Item>,
    directories: HashSet<&'a [u8]>,
    changes: Vec<Change>,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Path, name: &[u8]) -> Result<()> {
        let mut inside = vec![];
        for_each(directory, name, |path, is_dir| {
            inside.push((path, is_dir));
            Ok(())
        })?;
        for (path, is_dir) in inside {
            if path == b".git" {
                continue;
            }
            let here = directory.join(std::ffi::OsStr::from_bytes(last_name(&path)));
            match self.items.remove(path.as_slice()) {
                // Where a file was: it is gone, and the directory is new.
                Some(_) if is_dir => {
                    self.changes.push(Change { path: path.clone(), how: How::Deleted });
                    self.changes.push(Change { path, how: How::NewDirectory });
                }
                Some(item) => {
                    if as_kept(self.kept, item, &here)?.is_none() {
                        self.changes.push(Change { path, how: How::Modified });
                    }
                }
                None if is_dir && self.directories.contains(path.as_slice()) => {
                    self.enter(&here, &path)?;
                }
                None => {
                    let how = if is_dir { How::NewDirectory } else { How::New };
                    self.changes.push(Change { path, how });
                }
            }
        }
        Ok(())
    }
}

/// By stat, else by content; then what vouches for it from now on.
pub(super) fn as_kept(kept: &Kept, item: &Item, here: &Path) -> Result<Option<Stat>> {
    let Ok(meta) = here.symlink_metadata() else { return Ok(None) };
    let same_kind = match item.entry.kind {
        Kind::File => meta.is_file(),
        Kind::Link => meta.is_symlink(),
        Kind::Gone => false,
    };
    if !same_kind || !item.has_mode(&meta) || meta.len() != item.entry.size {
        return Ok(None);
    }
    let stat = Stat::of(&meta);
    let same = kept.vouches(item, stat) || hash(here, item.entry.kind)? == item.entry.hash;
    Ok(same.then_some(stat))
}

fn hash(path: &Path, kind: Kind) -> Result<[u8; 32]> {
    let what = || format!("read {}", path.display());
    if kind == Kind::Link {
        let target = fs::read_link(path).context(what)?;
        return Ok(Sha256::digest(target.as_os_str().as_bytes()).into());
    }
    let mut file = File::open(path).context(what)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer).context(what)? {
            0 => return Ok(hasher.finalize().into()),
            length => hasher.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

fn for_each(
    directory: &Path,
    name: &[u8],
    mut each: impl FnMut(Vec<u8>, bool) -> Result<()>,
) -> Result<()> {
    let what = || format!("look into {}", directory.display());
    // A link is an entry of its directory and never a directory itself.
    if !directory.symlink_metadata().context(what)?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory).context(what)? {
        let entry = entry.context(what)?;
        let is_dir = entry.file_type().context(what)?.is_dir();
        let own = entry.file_name();
        let path = match name {
            b"" => own.as_bytes().to_vec(),
            name => [name, b"/", own.as_bytes()].concat(),
        };
        each(path, is_dir)?;
    }
    Ok(())
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn moved(kept: &Kept, place: &Place) -> Vec<Moved> {
    let now = refs::all(&place.root.join(".git"));
    let was = |name: &[u8]| kept.references.iter().find(|one| one.name == name);
    let is = |name: &[u8]| now.iter().find(|one| one.name == name);
    let mut names: Vec<_> =
        kept.references.iter().chain(&now).map(|one| one.name.clone()).collect();
    names.sort();
    names.dedup();
    let moved = names.into_iter().map(|name| Moved {
        was: was(&name).map(|one| one.value.clone()),
        is: is(&name).map(|one| one.value.clone()),
        name,
    });
    moved.filter(|moved| moved.was != moved.is).collect()
}
