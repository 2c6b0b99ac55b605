//! The guest's work, brought to the host and there made into what was asked for. The guest needs no git
//! for it and nothing of it is changed: objects, changed files and references are read, and git here
//! works on them in a directory of its own, beside the host's objects, index and tree.
//!
//! ```text
//! fetch ─> Work ─┬─> patch    for `git apply`: from the prepared commit, or another, to the guest's tree
//!                ├─> apply    what the guest changed, merged into the host's tree, all or nothing
//!                └─> branch   the guest's commits as they are
//! ```

mod apply;
mod blobs;
mod branch;
mod patch;
mod place;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use banger_agent::contract::workspace::{Answer, Ask, Entry, Found, How, Kind, Reference};
use tokio::io::{AsyncRead, AsyncWrite};

pub use apply::Applied;
pub use branch::Branched;
pub use patch::Patch;

use super::changes::{self, Changes, Rules};
use super::error::{Context as _, Result, WorkspaceError};
use super::prepare::noted;
use super::repository::Repository;
use super::talk::{Content, Talk, check};

#[derive(Debug)]
pub struct Work {
    repository: Repository,
    dir: tempfile::TempDir,
    /// The commit that the workspace was prepared from, as the guest tells.
    pub base: String,
    /// One that the host itself knows of: whose attributes count.
    recorded: String,
    /// What was sent, but git's own.
    kept: HashMap<Vec<u8>, Entry>,
    changes: Changes,
    contents: BTreeMap<Vec<u8>, Got>,
    /// The commit that the guest is at.
    pub head: Option<String>,
}

/// Content of the guest's, in a file here; of a link its target.
#[derive(Clone, Debug)]
struct Got {
    file: PathBuf,
    kind: Kind,
    mode: u32,
}

type Sink = Box<dyn Write + Send>;

/// `recorded`: the commit that the host was at when the workspace was prepared.
pub async fn fetch<S>(
    repository: Repository,
    guest_path: &str,
    recorded: &str,
    stream: S,
) -> Result<Work>
where
    S: AsyncRead + AsyncWrite,
{
    let mut talk = Talk::new(stream);
    let Found::Ours { note } = talk.open(guest_path).await? else {
        return Err(WorkspaceError::NotPrepared { guest_path: guest_path.to_owned() });
    };
    let base = noted(&note).into_iter().next().unwrap_or_default();
    let base = repository.revision(&base)?;
    let recorded = repository.revision(recorded)?;
    let dir = tempfile::tempdir().context(|| "make a directory for the guest's work".into())?;
    let kept = talk.kept().await?;
    let mut work = Work {
        repository,
        dir,
        base,
        recorded,
        kept: HashMap::new(),
        changes: Changes::default(),
        contents: BTreeMap::new(),
        head: None,
    };
    work.kept = kept
        .into_iter()
        .filter(|entry| !entry.path.starts_with(b".git/"))
        .map(|entry| (entry.path.clone(), entry))
        .collect();
    work.changes = work.changed(&mut talk).await?;
    work.objects(&mut talk).await?;
    work.read(&mut talk).await?;
    Ok(work)
}

impl Work {
    /// By the guest's own rules of what is ignored, also those that are new.
    async fn changed<S: AsyncRead + AsyncWrite>(&self, talk: &mut Talk<S>) -> Result<Changes> {
        let rules = Rules::new(&self.repository)?;
        let mut paths: Vec<_> =
            self.kept.keys().filter(|path| Rules::is_one(path)).cloned().collect();
        loop {
            talk.read(&paths, |number, content| match (content.kind, paths.get(number)) {
                (Kind::File, Some(path)) => Ok(Box::new(rules.create(path)?) as Sink),
                _ => Ok(Box::new(std::io::sink()) as Sink),
            })
            .await?;
            let changes = changes::find(talk, &rules).await?;
            let is_new = |path: &Vec<u8>| Rules::is_one(path) && !rules.has(path);
            let new = changes.files.iter().filter(|change| change.how == How::New);
            paths = new.map(|change| change.path.clone()).filter(is_new).collect();
            if paths.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// What the guest's git made, beside which the host's objects are found.
    async fn objects<S: AsyncRead + AsyncWrite>(&mut self, talk: &mut Talk<S>) -> Result<()> {
        let (mut references, mut paths) = (vec![], vec![]);
        talk.each(&Ask::Git, |answer| {
            match answer {
                Answer::References(more) => references.extend(more),
                Answer::Paths(more) => paths.extend(more),
                _ => {}
            }
            Ok(())
        })
        .await?;
        check(&paths)?;
        if !paths.iter().all(|path| is_object(path)) {
            return Err(WorkspaceError::OutOfTurn("an object that is none"));
        }
        let objects = self.dir.path().join("objects");
        let info = objects.join("info");
        let what = || "make a place for the guest's objects".to_owned();
        fs::create_dir_all(&info).context(what)?;
        let own = self.repository.common_dir.join("objects");
        let own = own.canonicalize().context(what)?;
        fs::write(info.join("alternates"), format!("{}\n", own.display())).context(what)?;
        talk.read(&paths, |number, _| {
            let path = paths.get(number).map(Vec::as_slice).unwrap_or_default();
            let path = path.strip_prefix(b".git/objects/").unwrap_or(path);
            create(&objects, path)
        })
        .await?;
        self.head = head(&references);
        Ok(())
    }

    /// All that may differ from the commit.
    async fn read<S: AsyncRead + AsyncWrite>(&mut self, talk: &mut Talk<S>) -> Result<()> {
        let changed = self.changes.files.iter().filter(|change| change.how != How::Deleted);
        let mut paths: Vec<_> = changed.map(|change| change.path.clone()).collect();
        let sent = self.kept.values().filter(|one| !one.committed && one.kind != Kind::Gone);
        paths.extend(sent.map(|entry| entry.path.clone()));
        paths.sort();
        paths.dedup();
        // Git's own would be taken for git's.
        paths.retain(|path| !is_git(path));
        let contents = self.dir.path().join("contents");
        let (mut got, list) = (BTreeMap::new(), paths.clone());
        talk.read(&paths, |number, Content { kind, mode }| {
            let name = number.to_string();
            if let Some(path) = list.get(number) {
                let file = contents.join(&name);
                got.insert(path.clone(), Got { file, kind, mode });
            }
            create(&contents, name.as_bytes())
        })
        .await?;
        self.contents = got;
        Ok(())
    }

    /// What is not in any commit of the guest's.
    #[must_use]
    pub fn uncommitted(&self) -> usize {
        self.changes.files.len()
    }
}

fn create(root: &std::path::Path, path: &[u8]) -> Result<Sink> {
    use std::os::unix::ffi::OsStrExt;
    let file = root.join(std::ffi::OsStr::from_bytes(path));
    let what = || format!("make {}", file.display());
    fs::create_dir_all(file.parent().unwrap_or(root)).context(what)?;
    Ok(Box::new(std::io::BufWriter::new(fs::File::create(&file).context(what)?)))
}

/// `.git/objects/ab/cd...` or `.git/objects/pack/pack-abcd.pack`: no name that means more.
fn is_object(path: &[u8]) -> bool {
    let is_hex = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit);
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    match names.as_slice() {
        [b".git", b"objects", b"pack", file] => {
            let stem = file.strip_suffix(b".pack").or_else(|| file.strip_suffix(b".idx"));
            stem.and_then(|stem| stem.strip_prefix(b"pack-")).is_some_and(is_hex)
        }
        [b".git", b"objects", fan, file] => fan.len() == 2 && is_hex(fan) && is_hex(file),
        _ => false,
    }
}

fn is_git(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| name.eq_ignore_ascii_case(b".git"))
}

fn head(references: &[Reference]) -> Option<String> {
    let value = |name: &[u8]| {
        references.iter().find(|one| one.name == name).map(|one| one.value.as_slice())
    };
    let head = value(b"HEAD")?;
    let commit = match head.strip_prefix(b"ref: ") {
        Some(name) => value(name)?,
        None => head,
    };
    let is_commit = matches!(commit.len(), 40 | 64) && commit.iter().all(u8::is_ascii_hexdigit);
    is_commit.then(|| String::from_utf8_lossy(commit).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_are_objects() {
        for good in [&b".git/objects/ab/cdef01"[..], b".git/objects/pack/pack-ab12.idx"] {
            assert!(is_object(good), "{good:?}");
        }
        for bad in [
            &b".git/objects/info/alternates"[..],
            b".git/objects/pack/pack-ab.keep",
            b".git/objects/ab/../x",
            b".git/hooks/ab/cd",
            b".git/objects/ab/",
        ] {
            assert!(!is_object(bad), "{bad:?}");
        }
        assert!(is_git(b"sub/.GIT/config") && !is_git(b"sub/.gitignore"));
    }
}
