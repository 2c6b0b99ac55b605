//! The tree that was put together becomes the tree there is.
//!
//! A new one takes its place by one rename. Changes of one that is in use, by shells that sit in it
//! for instance, are made in place: a journal beside their content is complete and on the disk before
//! the first, and from then on they are finished, by this process, by its child when it is killed, or
//! by the next one that opens the workspace.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use banger_agent::contract::codec::{Decode, Encode};
use banger_agent::contract::workspace::{Kind, pieces};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, setsid};

use super::fault::{Context as _, Fault, Result};
use super::kept::{Item, Kept, Stat};
use super::place::Place;
use super::stage::{Stage, remove_tree};
use super::talk::{read_records, write_records};
use super::{refs, sync};

const JOURNAL: &str = "journal";

#[derive(Debug, Encode, Decode)]
enum Step {
    /// Of no number: the entry stays.
    Keep {
        item: Item,
    },
    Put {
        number: u32,
        item: Item,
    },
    Remove {
        path: Vec<u8>,
    },
    Note {
        note: String,
    },
    /// The first, if it is there: the entries of the tree that no other step names stay.
    Rest,
}

impl Stage {
    pub(super) fn commit(mut self, place: &Place, note: String) -> Result<()> {
        if self.whole { self.settle(place, note) } else { self.change(place, note) }
    }

    /// Where there was nothing, or an empty directory.
    fn settle(&mut self, place: &Place, note: String) -> Result<()> {
        let entries = self.items().map(|(_, item)| item).collect();
        // Without these git sees no repository.
        for name in [".git/objects", ".git/refs"] {
            let directory = self.directory.join(name);
            fs::create_dir_all(&directory).context(|| format!("make {}", directory.display()))?;
        }
        let references = refs::all(&self.directory.join(".git"));
        let kept = Kept { note, entries, references, until_ns: 0 };
        kept.save(&self.directory.join(banger_agent::contract::workspace::STATE_DIR))?;
        sync(&self.directory)?;
        let what = || format!("put the new tree at {}", place.root.display());
        fs::rename(&self.directory, &place.root).context(what)?;
        let parent = place.root.parent().unwrap_or_else(|| Path::new("/"));
        File::open(parent).and_then(|parent| parent.sync_all()).context(what)
    }

    fn change(&mut self, place: &Place, note: String) -> Result<()> {
        let arrived: HashSet<u32> = self.needed.iter().copied().collect();
        let wanted = self.wish.wanted.iter().filter(|entry| entry.kind != Kind::Gone);
        let wanted: HashSet<&[u8]> = wanted.map(|entry| entry.path.as_slice()).collect();
        let rest = self.wish.keeps.then_some(Step::Rest);
        let mut steps: Vec<Step> = rest
            .into_iter()
            .chain(self.removed(&wanted).into_iter().map(|path| Step::Remove { path }))
            .chain(self.objects(&wanted).map(|item| Step::Keep { item }))
            .chain(self.items().map(|(number, item)| match arrived.contains(&number) {
                true => Step::Put { number, item },
                false => Step::Keep { item },
            }))
            .collect();
        steps.push(Step::Note { note });
        let what = || "write the journal".to_owned();
        let journal = File::create(self.directory.join(JOURNAL)).context(what)?;
        let mut journal = BufWriter::new(journal);
        write_records(&mut journal, &pieces(steps, Step::weight))?;
        journal.flush().context(what)?;
        drop(journal);
        sync(&self.directory)?;
        fs::rename(&self.directory, place.state().join("commit")).context(what)?;
        shielded(|| finish(place))
    }

    /// What is wanted, with its number and the stat of its file.
    fn items(&self) -> impl Iterator<Item = (u32, Item)> + '_ {
        (0..).zip(&self.wish.wanted).map(|(number, entry)| {
            let stat = self.stats.get(&number).copied().unwrap_or_default();
            (number, Item { entry: entry.clone(), stat })
        })
    }

    /// What was sent before and is not wanted any more.
    fn removed(&self, wanted: &HashSet<&[u8]>) -> BTreeSet<Vec<u8>> {
        let stays = |item: &Item| {
            item.entry.kind == Kind::Gone
                || item.is_object()
                || item.entry.path.starts_with(b".git/refs/")
                || (self.wish.keeps && item.is_of_tree())
        };
        let old = self.old.entries.iter().filter(|item| !stays(item)).map(|item| &item.entry.path);
        let old = old.filter(|path| !wanted.contains(path.as_slice()));
        old.chain(&self.wish.dropped).cloned().collect()
    }

    /// Those that came before, so that the host is not sent them as the guest's own.
    fn objects<'a>(&'a self, wanted: &'a HashSet<&[u8]>) -> impl Iterator<Item = Item> + 'a {
        let old = self.old.entries.iter().filter(|item| item.is_object());
        old.filter(move |item| !wanted.contains(item.entry.path.as_slice())).cloned()
    }
}

impl Step {
    fn weight(&self) -> usize {
        match self {
            Self::Keep { item } | Self::Put { item, .. } => item.entry.weight() + 32,
            Self::Remove { path } => path.len() + 8,
            Self::Note { note } => note.len() + 8,
            Self::Rest => 1,
        }
    }
}

/// Runs in a session of its own: whoever kills this process does not kill that.
fn shielded(work: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: this process has one thread, so its copy is whole.
    #[allow(unsafe_code, reason = "fork has no safe form")]
    match unsafe { fork() }.context(|| "start the last step".into())? {
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            _ => Err(Fault::Refused {
                code: banger_agent::contract::workspace::Refusal::Failed,
                message: "the last step did not end well; it is finished at the next try".into(),
            }),
        },
        ForkResult::Child => {
            let _ = setsid();
            let done = work();
            // SAFETY: ends the copy at once, without what belongs to the original.
            #[allow(unsafe_code, reason = "_exit has no safe form")]
            unsafe {
                nix::libc::_exit(i32::from(done.is_err()))
            }
        }
    }
}

/// Does what a journal says, as often as need be; nothing if there is none.
pub(super) fn finish(place: &Place) -> Result<()> {
    let directory = place.state().join("commit");
    let journal = match File::open(directory.join(JOURNAL)) {
        Ok(journal) => journal,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return remove_tree(&directory),
        Err(error) => return Err(error).context(|| "open the journal".into()),
    };
    let steps: Vec<Vec<Step>> = read_records(&mut BufReader::new(journal))?;
    let mut kept = Kept::default();
    let (mut rest, mut named) = (vec![], HashSet::new());
    for step in steps.into_iter().flatten() {
        match step {
            Step::Rest => {
                rest = Kept::load(place)?.entries;
                rest.retain(Item::is_of_tree);
            }
            Step::Remove { path } => {
                remove(place, &path)?;
                named.insert(path);
            }
            Step::Keep { item } => kept.entries.push(item),
            Step::Put { number, item } => {
                put(place, &directory.join(number.to_string()), &item.entry.path)?;
                // Where nothing is, the guest has been quick; it is found as its change.
                let stat =
                    place.at(&item.entry.path).symlink_metadata().map(|meta| Stat::of(&meta));
                kept.entries.push(Item { stat: stat.unwrap_or_default(), ..item });
            }
            Step::Note { note } => kept.note = note,
        }
    }
    if !rest.is_empty() {
        named.extend(kept.entries.iter().map(|item| item.entry.path.clone()));
        rest.retain(|item| !named.contains(&item.entry.path));
        rest.iter_mut().for_each(|item| item.entry.committed = true);
        kept.entries.extend(rest);
    }
    kept.references = refs::all(&place.root.join(".git"));
    sync(&place.root)?;
    kept.save(&place.state())?;
    remove_tree(&directory)
}

fn put(place: &Place, from: &Path, path: &[u8]) -> Result<()> {
    if from.symlink_metadata().is_err() {
        return Ok(()); // It has been put.
    }
    let mut above = place.root.clone();
    let mut names = path.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        above.push(OsStr::from_bytes(name));
        let what = || format!("put {}", above.display());
        let is_last = names.peek().is_none();
        match above.symlink_metadata() {
            Ok(meta) if meta.is_dir() && is_last => fs::remove_dir_all(&above).context(what)?,
            Ok(meta) if meta.is_dir() || is_last => {}
            // A link or a file where a directory belongs is not entered.
            Ok(_) => {
                fs::remove_file(&above).context(what)?;
                fs::create_dir(&above).context(what)?;
            }
            Err(_) if is_last => {}
            Err(_) => fs::create_dir(&above).context(what)?,
        }
    }
    fs::rename(from, &above).context(|| format!("put {}", above.display()))
}

/// And the directories above it that are empty then.
fn remove(place: &Place, path: &[u8]) -> Result<()> {
    let here = place.at(path);
    let what = || format!("remove {}", here.display());
    if !leads_there(place, path) {
        return Ok(());
    }
    let removed = match here.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&here),
        Ok(_) => fs::remove_file(&here),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(what),
        _ => {}
    }
    let above = here.ancestors().skip(1).take_while(|above| *above != place.root);
    for above in above {
        if fs::remove_dir(above).is_err() {
            break; // Something else is in it.
        }
    }
    Ok(())
}

/// Whether every directory above a path is one, and no link to elsewhere.
fn leads_there(place: &Place, path: &[u8]) -> bool {
    let mut above = place.root.clone();
    let mut names: Vec<_> = path.split(|byte| *byte == b'/').collect();
    names.pop();
    names.into_iter().all(|name| {
        above.push(OsStr::from_bytes(name));
        above.symlink_metadata().is_ok_and(|meta| meta.is_dir())
    })
}
