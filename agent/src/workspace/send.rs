//! What the host reads: the last commit, content, git's own.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use banger_agent::contract::workspace::{Answer, Entry, Kind, MAX_DATA, Refusal, is_plain, pieces};

use super::fault::{Context as _, Fault, Result};
use super::kept::Kept;
use super::place::Place;
use super::refs;
use super::talk::Talk;

pub(super) fn kept(kept: &Kept, talk: &mut Talk) -> Result<()> {
    talk.say(&Answer::Note(kept.note.clone()))?;
    let entries: Vec<Entry> = kept.entries.iter().map(|item| item.entry.clone()).collect();
    for piece in pieces(entries, Entry::weight) {
        talk.say(&Answer::Entries(piece))?;
    }
    talk.say(&Answer::Done)
}

pub(super) fn contents(place: &Place, paths: Vec<Vec<u8>>, talk: &mut Talk) -> Result<()> {
    for path in paths {
        if !is_plain(&path) {
            return Err(Fault::path("not a path of the workspace".into()));
        }
        content(&place.at(&path), talk)?;
    }
    talk.say(&Answer::Done)
}

fn content(path: &Path, talk: &mut Talk) -> Result<()> {
    let what = || format!("read {}", path.display());
    let Ok(meta) = path.symlink_metadata() else { return talk.say(&Answer::Absent) };
    let mode = meta.mode() & 0o777;
    if meta.is_symlink() {
        let target = fs::read_link(path).context(what)?;
        let size = target.as_os_str().len() as u64;
        talk.say(&Answer::Content { kind: Kind::Link, mode, size })?;
        return talk.say_data(target.as_os_str().as_bytes());
    }
    if !meta.is_file() {
        return talk.say(&Answer::Absent);
    }
    let mut file = File::open(path).context(what)?;
    let size = file.metadata().context(what)?.len();
    talk.say(&Answer::Content { kind: Kind::File, mode, size })?;
    let (mut left, mut buffer) = (size, vec![0; MAX_DATA]);
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = file.read(buffer.get_mut(..room).unwrap_or_default()).context(what)?;
        if length == 0 {
            let message = format!("{} became shorter while it was read", path.display());
            return Err(Fault::Refused { code: Refusal::Failed, message });
        }
        talk.say_data(buffer.get(..length).unwrap_or_default())?;
        left -= length as u64;
    }
    Ok(())
}

/// References, and objects that did not come from the host.
pub(super) fn git(place: &Place, kept: &Kept, talk: &mut Talk) -> Result<()> {
    let references = refs::all(&place.root.join(".git"));
    for piece in pieces(references, |one| one.name.len() + one.value.len() + 16) {
        talk.say(&Answer::References(piece))?;
    }
    let sent: HashSet<&[u8]> = kept.entries.iter().map(|item| item.entry.path.as_slice()).collect();
    let mut paths = vec![];
    let objects = place.at(b".git/objects");
    for directory in fs::read_dir(&objects).context(|| "list git's objects".into())?.flatten() {
        let name = directory.file_name();
        let name = name.as_bytes();
        let is_fan = name.len() == 2 && name.iter().all(u8::is_ascii_hexdigit);
        if !is_fan && name != b"pack" {
            continue;
        }
        for file in fs::read_dir(directory.path()).into_iter().flatten().flatten() {
            let path = [b".git/objects/", name, b"/", file.file_name().as_bytes()].concat();
            if !sent.contains(path.as_slice()) && (is_fan || is_pack(&path)) {
                paths.push(path);
            }
        }
    }
    for piece in pieces(paths, |path| path.len() + 8) {
        talk.say(&Answer::Paths(piece))?;
    }
    talk.say(&Answer::Done)
}

fn is_pack(path: &[u8]) -> bool {
    path.ends_with(b".pack") || path.ends_with(b".idx")
}
