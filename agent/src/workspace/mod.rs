//! The guest's end of `contract::workspace`: a process of its own, run by the SSH server for whoever
//! asks for it. It needs neither git nor anything else of the image.
//!
//! ```text
//! talk     frames on the standard streams
//! place    the path, its lock, what is there
//! kept     what was committed last: entries and references, below .git/banger
//! look     what has changed since
//! refs     git's references, from their files
//! stage    content arrives beside the tree
//! commit   and takes its place at once, or by a journal that is finished whatever happens
//! send     content for the host
//! ```
//!
//! What must not be done here: following a link of the tree, believing a path, changing the tree
//! before a commit.

mod commit;
mod fault;
mod kept;
mod look;
mod place;
mod refs;
mod send;
mod stage;
mod talk;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use banger_agent::contract::workspace::{Answer, Ask, Refusal};

use fault::{Context as _, Fault, Result};
use kept::Kept;
use place::Place;
use stage::{Stage, Wish};
use talk::Talk;

pub(crate) fn run() -> ExitCode {
    // Directories are made with modes of their own, and are not to be everybody's.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let streams = || -> std::io::Result<(File, File)> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
        Ok((stdin.into(), std::io::stdout().as_fd().try_clone_to_owned()?.into()))
    };
    let Ok((from, to)) = streams() else { return ExitCode::FAILURE };
    let mut talk = Talk::new(from, to);
    match serve(&mut talk) {
        // Nobody is left to be told.
        Ok(()) | Err(Fault::Left) => ExitCode::SUCCESS,
        Err(Fault::Refused { code, message }) => {
            drop(talk.say(&Answer::Refused { code, message }));
            drop(talk.flush());
            ExitCode::FAILURE
        }
    }
}

fn serve(talk: &mut Talk) -> Result<()> {
    let Some(Ask::Open { path }) = talk.ask()? else { return Err(out_of_turn()) };
    let place = Place::open(&path)?;
    commit::finish(&place)?;
    // Under the lock it is as it was read.
    let (found, mut kept) = place.look()?;
    let ours = kept.is_some();
    talk.say(&Answer::Opened(found))?;
    talk.flush()?;
    let mut stage: Option<Stage> = None;
    let mut wish = Wish::default();
    while let Some(ask) = talk.ask()? {
        match ask {
            Ask::Changes => look::changes(&place, known(&mut kept, &place)?, talk)?,
            Ask::List(directories) => look::list(&place, directories, talk)?,
            Ask::Kept => send::kept(known(&mut kept, &place)?, talk)?,
            Ask::Read(paths) => send::contents(&place, paths, talk)?,
            Ask::Git => send::git(&place, known(&mut kept, &place)?, talk)?,
            Ask::Keep if ours => wish.keeps = true,
            Ask::Want(entries) => wish.wanted.extend(entries),
            Ask::Drop(paths) => wish.dropped.extend(paths),
            Ask::Sync => {
                let old = match (ours, kept.take()) {
                    (false, _) => None,
                    (true, Some(kept)) => Some(kept),
                    (true, None) => Some(Kept::load(&place)?),
                };
                let mut new = Stage::new(&place, old, std::mem::take(&mut wish))?;
                new.receive(talk)?;
                stage = Some(new);
            }
            Ask::Commit { note } => {
                let stage = stage.take().ok_or_else(out_of_turn)?;
                stage.commit(&place, note)?;
                kept = None;
                talk.say(&Answer::Done)?;
            }
            Ask::Keep | Ask::Open { .. } => return Err(out_of_turn()),
        }
        talk.flush()?;
    }
    Ok(())
}

/// What was committed last, read once.
fn known<'a>(kept: &'a mut Option<Kept>, place: &Place) -> Result<&'a Kept> {
    match kept {
        Some(kept) => Ok(kept),
        None => Ok(kept.insert(Kept::load(place)?)),
    }
}

fn out_of_turn() -> Fault {
    Fault::Refused { code: Refusal::Failed, message: "asked out of turn".into() }
}

/// Everything of that file system is on the disk.
fn sync(directory: &std::path::Path) -> Result<()> {
    let what = || format!("sync {}", directory.display());
    let file = File::open(directory).context(what)?;
    nix::unistd::syncfs(&file).context(what)
}
