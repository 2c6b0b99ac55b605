//! From a plan to a tree in the guest. The guest says what it needs of what is wanted, and commits all
//! of it or nothing. Where it is known to have what is on record here, only the difference is told.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use banger_agent::contract::workspace::{
    Answer, Ask, Entry, Found, HEADER_BYTES, Kind, MAX_DATA, data_header, pieces,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::changes::{self, Rules};
use super::error::{Context as _, Result, WorkspaceError};
use super::history::{self, History};
use super::manifest;
use super::plan::Plan;
use super::scan::{Root, file_stat};
use super::talk::Talk;
use crate::model::{Digest, FileStat, SentFile};

/// Frames of content that are read ahead.
const AHEAD: usize = 8;
/// Commits of which the guest's note says that it has them.
const HAVE: usize = 16;
/// In the note, before the digest of what was staged.
const STAGED: &str = "index ";
/// In the note, before the digest of the manifest.
const SENT: &str = "manifest ";

#[derive(Debug)]
pub struct Prepared {
    /// Of the tree, without git's own.
    pub files: u64,
    pub bytes: u64,
    /// What had to travel, git's own included.
    pub sent_files: u64,
    pub sent_bytes: u64,
    /// For the daemon to keep.
    pub manifest: Vec<u8>,
    pub manifest_digest: Digest,
}

/// Where the content of a wanted entry is.
enum Source {
    Tree(FileStat),
    Made(PathBuf),
    Nowhere,
}

/// `discard`: the guest's own changes are given up.
pub async fn prepare<S>(
    plan: Arc<Plan>,
    guest_path: &str,
    discard: bool,
    stream: S,
) -> Result<Prepared>
where
    S: AsyncRead + AsyncWrite,
{
    let mut talk = Talk::new(stream);
    let mut have = vec![];
    let mut dropped = vec![];
    let mut keeps = false;
    let mut history = None;
    match talk.open(guest_path).await? {
        Found::Nothing => {}
        Found::Other { what } => {
            return Err(WorkspaceError::InUse { guest_path: guest_path.to_owned(), what });
        }
        Found::Ours { note } => {
            have = noted(&note);
            history = Some(collect(&plan, &have));
            let mut changes = changes::find(&mut talk, &rules(&plan)?).await?;
            if let Some(sent) = noted_digest(&note, STAGED) {
                changes.look_at_index(&mut talk, sent, plan.repository.object_bytes()).await?;
            }
            if !changes.is_empty() && !discard {
                let (guest_path, lines) = (guest_path.to_owned(), changes.lines());
                return Err(WorkspaceError::GuestChanged { guest_path, lines });
            }
            dropped.extend(changes.files.into_iter().map(|change| change.path));
            keeps = plan.base.digest.is_some_and(|base| Some(base) == noted_digest(&note, SENT));
        }
    }
    let history = match history {
        Some(history) => history,
        None => collect(&plan, &have),
    };
    let history = history.await.unwrap_or(Err(WorkspaceError::Ended))?;
    let mut wanted = Wanted::default();
    if keeps {
        talk.ask(&Ask::Keep).await?;
        wanted.add_difference(&plan, &dropped);
        dropped.extend(plan.removed_since(&plan.base.manifest));
    } else {
        wanted.add_tree(&plan, |_, _| true);
    }
    wanted.add_gits_own(&history)?;
    let Wanted { entries, sources } = wanted;
    for piece in pieces(entries.clone(), Entry::weight) {
        talk.ask(&Ask::Want(piece)).await?;
    }
    for piece in pieces(dropped, Vec::len) {
        talk.ask(&Ask::Drop(piece)).await?;
    }
    let mut needed = vec![];
    talk.each(&Ask::Sync, |answer| {
        if let Answer::Need(more) = answer {
            needed.extend(more);
        }
        Ok(())
    })
    .await?;
    let entry = |index: &u32| entries.get(usize::try_from(*index).unwrap_or(usize::MAX));
    let sent_bytes = needed.iter().filter_map(entry).map(|entry| entry.size).sum();
    let sent_files = needed.len() as u64;
    send(&mut talk, Root::open(&plan.repository.root)?, entries, sources, needed).await?;
    let manifest = manifest::encode(&plan.manifest).unwrap_or_default();
    let manifest_digest = manifest::digest(&manifest);
    let note = note(&plan.commit, have, history.staged, manifest_digest);
    talk.ask(&Ask::Commit { note }).await?;
    match talk.from.answer().await? {
        Answer::Done => {}
        _ => return Err(WorkspaceError::OutOfTurn("something else than that it is done")),
    }
    let (files, bytes) = (plan.manifest.files.len() as u64, plan.bytes());
    Ok(Prepared { files, bytes, sent_files, sent_bytes, manifest, manifest_digest })
}

/// The guest's rules are those that it is sent.
fn rules(plan: &Plan) -> Result<Rules> {
    let rules = Rules::new(&plan.repository)?;
    let root = Root::open(&plan.repository.root)?;
    for file in plan.manifest.files.iter().filter(|file| Rules::is_one(&file.path)) {
        if let Ok(mut open) = root.open_file(&file.path) {
            let what = || "copy a .gitignore".to_owned();
            std::io::copy(&mut open, &mut rules.create(&file.path)?).context(what)?;
        }
    }
    Ok(rules)
}

/// What is to be, and where it comes from.
#[derive(Default)]
struct Wanted {
    entries: Vec<Entry>,
    sources: Vec<Source>,
}

impl Wanted {
    fn add_tree(&mut self, plan: &Plan, is_named: impl Fn(&SentFile, bool) -> bool) {
        for (file, committed) in plan.manifest.files.iter().zip(&plan.committed) {
            if is_named(file, *committed) {
                let kind = if file.stat.is_link { Kind::Link } else { Kind::File };
                self.add(&file.path, kind, &file.stat, file.hash.0, *committed);
                self.sources.push(Source::Tree(file.stat));
            }
        }
        for path in &plan.gone {
            self.add(path, Kind::Gone, &FileStat::default(), [0; 32], false);
            self.sources.push(Source::Nowhere);
        }
    }

    /// Of what the guest keeps: whatever is not as it was sent, there or here, and what is not as the
    /// commit has it.
    fn add_difference(&mut self, plan: &Plan, changed: &[Vec<u8>]) {
        let changed: HashSet<&[u8]> = changed.iter().map(Vec::as_slice).collect();
        let is_as_sent = |file: &SentFile| {
            let sent = plan.base.manifest.find(&file.path);
            let what = |file: &SentFile| {
                let FileStat { is_link, mode, size, mtime_ns, .. } = file.stat;
                (is_link, mode, size, mtime_ns, file.hash)
            };
            sent.is_some_and(|sent| what(sent) == what(file))
        };
        self.add_tree(plan, |file, committed| {
            !committed || !is_as_sent(file) || changed.contains(file.path.as_slice())
        });
    }

    fn add_gits_own(&mut self, history: &History) -> Result<()> {
        for file in &history.files {
            // Objects are named by their content.
            let hash = match file.path.starts_with(b".git/objects/") {
                true => [0; 32],
                false => {
                    let what = || format!("read {}", file.file.display());
                    Sha256::digest(std::fs::read(&file.file).context(what)?).into()
                }
            };
            self.add(&file.path, Kind::File, &file.stat, hash, true);
            self.sources.push(Source::Made(file.file.clone()));
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], kind: Kind, stat: &FileStat, hash: [u8; 32], committed: bool) {
        let FileStat { mode, size, mtime_ns, .. } = *stat;
        let path = path.to_vec();
        self.entries.push(Entry { path, kind, mode, size, mtime_ns, hash, committed });
    }
}

/// Content in the order of what is needed, read ahead by a thread of its own.
async fn send<S: AsyncRead + AsyncWrite>(
    talk: &mut Talk<S>,
    root: Root,
    entries: Vec<Entry>,
    sources: Vec<Source>,
    needed: Vec<u32>,
) -> Result<()> {
    let (frames, mut queue) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        let mut frames = Frames { to: frames, frame: Frames::empty() };
        for index in needed {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let (Some(entry), Some(source)) = (entries.get(index), sources.get(index)) else {
                return Err(WorkspaceError::OutOfTurn("the need of something unknown"));
            };
            read_into(&mut frames, &root, entry, source)?;
        }
        frames.flush();
        Ok(())
    });
    let Talk { from, to } = talk;
    let sending = async {
        while let Some(frame) = queue.recv().await {
            if to.write_all(&frame).await.is_err() {
                return Err(WorkspaceError::Ended);
            }
        }
        Ok(())
    };
    // A guest that cannot go on says so in the middle of it.
    let sent = tokio::select! {
        sent = sending => sent,
        error = from.last_word() => return Err(error),
    };
    if sent.is_err() {
        return Err(from.last_word().await);
    }
    match reading.await {
        Ok(read) => read,
        Err(_) => Err(WorkspaceError::Ended),
    }
}

fn read_into(frames: &mut Frames, root: &Root, entry: &Entry, source: &Source) -> Result<()> {
    let changed = || WorkspaceError::Changed { path: entry.path.clone() };
    let mut file = match source {
        Source::Tree(stat) if stat.is_link => {
            let target = root.read_link(&entry.path).map_err(|_| changed())?;
            if <[u8; 32]>::from(Sha256::digest(&target)) != entry.hash {
                return Err(changed());
            }
            frames.push(&target);
            return Ok(());
        }
        Source::Tree(stat) => {
            let file = root.open_file(&entry.path).map_err(|_| changed())?;
            // As it was when it was hashed; or it is not what is recorded of it.
            let now = rustix::fs::fstat(&file).ok().and_then(|stat| file_stat(&stat));
            if now != Some(*stat) {
                return Err(changed());
            }
            file
        }
        Source::Made(path) => {
            std::fs::File::open(path).context(|| format!("open {}", path.display()))?
        }
        Source::Nowhere => return Ok(()),
    };
    let mut left = usize::try_from(entry.size).unwrap_or(usize::MAX);
    while left > 0 {
        let room = frames.room(left);
        match file.read(room).context(|| "read what is sent".into())? {
            0 => return Err(changed()),
            length => {
                frames.filled(length);
                left -= length;
            }
        }
    }
    Ok(())
}

/// Content cut into frames that are as large as they may be: many files share one.
struct Frames {
    to: mpsc::Sender<Vec<u8>>,
    frame: Frame,
}

struct Frame {
    bytes: Vec<u8>,
    length: usize,
}

impl Frames {
    fn empty() -> Frame {
        Frame { bytes: vec![0; HEADER_BYTES + MAX_DATA], length: 0 }
    }

    /// Where content can be put, not more than `wanted`; then [`Frames::filled`] says how much it was.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        let from = HEADER_BYTES + self.frame.length;
        let until = (from + wanted).min(HEADER_BYTES + MAX_DATA);
        self.frame.bytes.get_mut(from..until).unwrap_or_default()
    }

    fn filled(&mut self, length: usize) {
        self.frame.length += length;
        if self.frame.length >= MAX_DATA {
            self.flush();
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room(bytes.len());
            let length = room.len();
            room.copy_from_slice(bytes.get(..length).unwrap_or_default());
            bytes = bytes.get(length..).unwrap_or_default();
            self.filled(length);
        }
    }

    fn flush(&mut self) {
        let Frame { mut bytes, length } = std::mem::replace(&mut self.frame, Self::empty());
        if let (true, Ok(header)) = (length > 0, data_header(length)) {
            bytes.truncate(HEADER_BYTES + length);
            if let Some(place) = bytes.first_chunk_mut() {
                *place = header;
            }
            // Whoever does not take it any more has ended, and is asked why.
            drop(self.to.blocking_send(bytes));
        }
    }
}

/// Commits, the first of which is what the tree stands on, what its index stages, and what was sent.
fn note(commit: &str, mut have: Vec<String>, staged: Option<Digest>, sent: Digest) -> String {
    have.retain(|one| one != commit);
    have.insert(0, commit.to_owned());
    have.truncate(HAVE);
    have.extend(staged.map(|staged| format!("{STAGED}{staged}")));
    have.push(format!("{SENT}{sent}"));
    have.join("\n")
}

/// None, if an earlier banger wrote the note.
fn noted_digest(note: &str, of: &str) -> Option<Digest> {
    note.lines().find_map(|line| line.strip_prefix(of))?.parse().ok()
}

pub(super) fn noted(note: &str) -> Vec<String> {
    let is_commit = |line: &&str| line.len() >= 40 && line.bytes().all(|b| b.is_ascii_hexdigit());
    note.lines().filter(is_commit).map(str::to_owned).collect()
}

/// Made while the guest looks at what it has.
fn collect(plan: &Arc<Plan>, have: &[String]) -> JoinHandle<Result<History>> {
    let (plan, have) = (Arc::clone(plan), have.to_vec());
    tokio::task::spawn_blocking(move || history::collect(&plan, &have))
}
