//! A tree that is prepared again and again: whether all of it is told, or only the difference to what
//! the guest is known to have, the same is there afterwards.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use banger::host::workspace::PlanOptions;
use banger::model::Selection;
use banger_agent::contract::workspace::{
    Answer, Ask, Entry, Frame, HEADER_BYTES, Kind, decode, parse_header, record,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::interrupted::prepare_through;
use super::{Place, agent, git};

/// All that the guest's end says to that, but that it is done.
async fn answers(guest: &Path, ask: Ask) -> Vec<Answer> {
    let (stream, mut agent) = agent();
    let (mut from, mut to) = tokio::io::split(stream);
    let path = guest.to_str().unwrap().into();
    to.write_all(&record(&Ask::Open { path }).unwrap()).await.unwrap();
    to.write_all(&record(&ask).unwrap()).await.unwrap();
    let mut answers = vec![];
    loop {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).await.unwrap();
        let Frame::Record(length) = parse_header(header).unwrap() else { panic!("content") };
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await.unwrap();
        match decode::<Answer>(&payload).unwrap() {
            Answer::Done => break,
            Answer::Refused { message, .. } => panic!("{message}"),
            answer => answers.push(answer),
        }
    }
    drop((from, to));
    // With it goes its lock.
    agent.wait().await.unwrap();
    answers
}

/// What the guest keeps of the last commit, in order of the paths.
async fn kept(guest: &Path) -> Vec<Entry> {
    let answers = answers(guest, Ask::Kept).await.into_iter();
    let mut entries: Vec<Entry> = answers
        .flat_map(|answer| match answer {
            Answer::Entries(entries) => entries,
            _ => vec![],
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Without git's objects, of which an old workspace has more than a new one, and the time of what is
/// made for the guest.
fn of_tree(mut entries: Vec<Entry>) -> Vec<Entry> {
    let gits_own = entries.iter_mut().filter(|entry| entry.path.starts_with(b".git/"));
    gits_own.for_each(|entry| entry.mtime_ns = 0);
    entries.retain(|entry| !entry.path.starts_with(b".git/objects/"));
    entries
}

fn all() -> PlanOptions {
    let selection = Selection { include_untracked: true, ..Selection::default() };
    PlanOptions { selection, ..PlanOptions::default() }
}

/// A xorshift of its own, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// One change of the host's repository, of any kind there is.
fn change(place: &Place, dice: &mut Dice) {
    let repo = place.repo();
    let name = format!("d{}/f{}", dice.roll(3), dice.roll(4));
    let file = repo.join(&name);
    let free = |path: &Path| {
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            drop(fs::remove_file(path));
        }
        // A file may be where a directory is to be.
        let parent = path.parent().unwrap();
        if !parent.is_dir() || parent.is_symlink() {
            drop(fs::remove_file(parent));
            fs::create_dir_all(parent).unwrap();
        }
    };
    match dice.roll(9) {
        0..=2 => {
            free(&file);
            fs::write(&file, format!("{}\n", dice.roll(1000))).unwrap();
        }
        3 => free(&file),
        4 => {
            free(&file);
            symlink(format!("f{}", dice.roll(4)), &file).unwrap();
        }
        5 => {
            free(&file);
            place.write(&format!("{name}/inner{}", dice.roll(2)), "a directory now\n");
        }
        6 => {
            if file.is_file() && !file.is_symlink() {
                let mode = [0o755, 0o644][dice.roll(2)];
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        7 => {
            place.git("add -A");
            place.git("commit -q --allow-empty -m more");
        }
        _ => drop(place.git("checkout -q --detach HEAD~0")),
    }
}

#[tokio::test]
async fn the_difference_alone_leads_to_the_same_as_all_of_it() {
    for seed in 1..=6 {
        let place = Place::new();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        place.prepare_with(all(), false).await.unwrap();
        for round in 0..12 {
            for _ in 0..=dice.roll(4) {
                change(&place, &mut dice);
            }
            let what = format!("seed {seed}, round {round}");
            if dice.roll(4) == 0 {
                // Ignored, and so never anybody's business.
                place.write_guest("d0/build.log", "a line\n");
            }
            let discard = dice.roll(3) == 0 && {
                place.write_guest(["a.txt", "d1/guest", "src/b.txt"][dice.roll(3)], "mine\n");
                true
            };
            if dice.roll(5) == 0 {
                place.forget();
            }
            place.prepare_with(all(), discard).await.expect(&what);

            let other = place.dir.path().join("other");
            drop(fs::remove_dir_all(&other));
            let (stream, _agent) = agent();
            let plan = banger::host::workspace::plan(&place.repo(), all()).unwrap();
            let plan = std::sync::Arc::new(plan);
            let path = other.to_str().unwrap();
            banger::host::workspace::prepare(plan, path, false, stream).await.unwrap();
            let (is, should) = (kept(&place.guest()).await, kept(&other).await);
            assert_eq!(of_tree(is), of_tree(should.clone()), "{what}");
            for entry in should.iter().filter(|entry| !entry.path.starts_with(b".git/")) {
                let name = std::str::from_utf8(&entry.path).unwrap();
                let (here, there) = (place.guest().join(name), other.join(name));
                let meta =
                    |path: &Path| path.symlink_metadata().ok().map(|m| (m.file_type(), m.len()));
                assert_eq!(meta(&here), meta(&there), "{what}: {name}");
                if entry.kind == Kind::File {
                    assert_eq!(
                        fs::read(&here).unwrap(),
                        fs::read(&there).unwrap(),
                        "{what}: {name}"
                    );
                }
            }
            let status = |root: &Path| git(root, "status --porcelain=v1 --branch");
            assert_eq!(status(&place.guest()), status(&other), "{what}");
            git(&place.guest(), "fsck --no-dangling");
        }
    }
}

#[tokio::test]
async fn what_the_guest_is_not_known_to_have_is_told_in_full() {
    let place = Place::new();
    let first = place.prepare().await.unwrap();
    place.write("a.txt", "two\n");
    place.prepare().await.unwrap();
    // The record of an earlier time, as after a VM was rolled back, and one that is none.
    for record in [first.manifest, b"nonsense".to_vec()] {
        place.write("src/b.txt", &format!("{}\n", record.len()));
        let options = PlanOptions { last: Some(record), ..PlanOptions::default() };
        let again = place.prepare_with(options, false).await.unwrap();
        assert!(again.sent_files <= 2, "the file, and the index if git has written it meanwhile");
        assert_eq!(place.git_guest("status --porcelain"), place.git("status --porcelain"));
        assert_eq!(place.read_guest("a.txt").as_deref(), Some("two\n"));
    }
}

#[tokio::test]
async fn only_the_difference_is_told() {
    let place = Place::new();
    (0..500).for_each(|n| place.write(&format!("many/f{n}"), "one\n"));
    place.commit("many");
    place.prepare().await.unwrap();
    place.write("many/f7", "two\n");
    fs::remove_file(place.repo().join("many/f8")).unwrap();
    let (prepared, bytes) = prepare_through(&place, usize::MAX).await;
    prepared.unwrap();
    let index = place.repo().join(".git/index").metadata().unwrap().len();
    assert!(
        bytes < 8_000,
        "{bytes} bytes to say two files; the index, which is known, has {index}"
    );
    assert_eq!(place.git_guest("status --porcelain"), place.git("status --porcelain"));
}

#[tokio::test]
async fn objects_that_came_earlier_are_not_the_guests_own() {
    let place = Place::new();
    place.prepare().await.unwrap();
    for round in 0..3 {
        place.write("a.txt", &format!("{round}\n"));
        place.commit("more");
        place.prepare().await.unwrap();
    }
    let packs = kept(&place.guest()).await;
    let packs = packs.iter().filter(|entry| entry.path.ends_with(b".pack")).count();
    assert_eq!(packs, 4);
    let said = answers(&place.guest(), Ask::Git).await;
    let own = said.iter().filter(|answer| matches!(answer, Answer::Paths(_))).count();
    assert_eq!(own, 0, "{said:?}");
}
