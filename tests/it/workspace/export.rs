//! The guest's work comes back.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use banger::host::workspace::{Repository, Work, WorkspaceError as W, fetch};

use super::{Place, agent, git};

pub(super) async fn work(place: &Place) -> Work {
    let (stream, _agent) = agent();
    let repository = Repository::find(&place.repo()).unwrap();
    let head = repository.head.clone();
    fetch(repository, place.guest().to_str().unwrap(), &head, stream).await.unwrap()
}

/// Every file and link below, but git's own.
fn tree(root: &Path) -> Vec<(String, Vec<u8>, u32)> {
    let list = git(root, "ls-files -z -c -o --exclude-standard");
    let names = list.split('\0').filter(|name| !name.is_empty());
    let mut files: Vec<_> = names
        .filter_map(|name| {
            let meta = root.join(name).symlink_metadata().ok()?;
            let content = match meta.is_symlink() {
                true => {
                    fs::read_link(root.join(name)).unwrap().into_os_string().into_encoded_bytes()
                }
                false => fs::read(root.join(name)).unwrap(),
            };
            let runs = if meta.is_symlink() { 2 } else { meta.permissions().mode() >> 6 & 1 };
            Some((name.to_owned(), content, runs))
        })
        .collect();
    files.sort();
    files.dedup();
    files
}

/// The guest does a bit of everything.
fn busy(place: &Place) {
    place.write_guest("a.txt", "one\ncommitted in the guest\n");
    place.git_guest("add -A");
    place.git_guest(
        "-c user.name=Bob -c user.email=bob@example.org commit -q -m by-bob --date 2020-01-02T03:04:05Z",
    );
    place.write_guest("edited", "uncommitted\n");
    place.write_guest("dir/new.txt", "untracked\n");
    place.write_guest("target/out", "ignored\n");
    fs::write(place.guest().join("binary"), [0, 255, 10, 13, 0]).unwrap();
    fs::remove_file(place.guest().join("src/b.txt")).unwrap();
    symlink("dir/new.txt", place.guest().join("link")).unwrap();
    let script = place.guest().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_patch_makes_the_guests_tree_of_the_prepared_commit() {
    let place = Place::new();
    place.write("edited", "as committed\n");
    place.commit("second");
    place.write("edited", "sent uncommitted\n");
    place.prepare().await.unwrap();
    busy(&place);
    let refs = |place: &Place| place.git("for-each-ref") + &place.git("status --porcelain");
    let (before, guest_before) = (refs(&place), place.git_guest("status --porcelain"));
    let patch = work(&place).await.patch(None).unwrap();
    assert_eq!((patch.files, patch.commits), (7, 1));
    assert!(String::from_utf8_lossy(&patch.stat).contains("binary"));
    assert_eq!(refs(&place), before, "the host is as it was");
    assert_eq!(place.git_guest("status --porcelain"), guest_before, "and the guest");
    let clone = place.dir.path().join("clone");
    git(place.dir.path(), "clone -q repo clone");
    fs::write(place.dir.path().join("patch"), &patch.bytes).unwrap();
    git(&clone, "apply --index ../patch");
    assert_eq!(tree(&clone), tree(&place.guest()));
    // From another commit, also one of the guest's own.
    let head = place.git_guest("rev-parse HEAD");
    let later = work(&place).await.patch(Some(head.trim())).unwrap();
    assert!(!String::from_utf8_lossy(&later.bytes).contains("committed in the guest"));
    assert_eq!(later.commits, 0);
    let unknown = work(&place).await.patch(Some("nowhere")).unwrap_err();
    assert!(matches!(unknown, W::NoRevision { .. }), "{unknown:?}");
}

#[tokio::test]
async fn nothing_done_is_an_empty_patch() {
    let place = Place::new();
    place.prepare().await.unwrap();
    place.write_guest("target/out", "ignored\n");
    let patch = work(&place).await.patch(None).unwrap();
    assert!(patch.bytes.is_empty());
    assert_eq!((patch.files, patch.commits), (0, 0));
    assert_eq!(patch.base, place.git("rev-parse HEAD").trim());
    let nothing = Place::new();
    let (stream, _agent) = agent();
    let repository = Repository::find(&nothing.repo()).unwrap();
    let guest = nothing.guest().display().to_string();
    let refused = fetch(repository, &guest, "HEAD", stream).await.unwrap_err();
    assert!(matches!(refused, W::NotPrepared { .. }), "{refused:?}");
}

#[tokio::test]
async fn applied_it_is_all_here_or_nothing_is() {
    let place = Place::new();
    let lines: String = (0..30).map(|n| format!("line {n}\n")).collect();
    place.write("long", &lines);
    place.write("edited", "x\n");
    place.commit("second");
    place.write("edited", "sent uncommitted\n");
    place.prepare().await.unwrap();
    busy(&place);
    place.write_guest("long", &lines.replace("line 3\n", "line three, of the guest\n"));
    // The host has gone on as well.
    place.write("long", &lines.replace("line 25\n", "line 25, of the host\n"));
    place.write("other", "of the host\n");
    let index = place.git("ls-files -s") + &place.git("for-each-ref");
    let applied = work(&place).await.apply().unwrap();
    assert_eq!((applied.written.len(), applied.removed.len(), applied.merged), (7, 1, 1));
    let here = |path: &str| fs::read_to_string(place.repo().join(path)).unwrap();
    assert!(here("long").contains("three, of the guest") && here("long").contains("of the host"));
    assert_eq!(here("a.txt"), "one\ncommitted in the guest\n");
    assert_eq!(here("link"), "untracked\n");
    assert!(!place.repo().join("src").exists() && !place.repo().join("target").exists());
    let mode = fs::metadata(place.repo().join("script")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(place.git("ls-files -s") + &place.git("for-each-ref"), index, "files alone");
    let again = work(&place).await.apply().unwrap();
    assert_eq!(again.written.len(), 1, "all but the merged one is as it is there: {again:?}");
    // Both sides changed the same line.
    place.write("a.txt", "one\nsomething else\n");
    place.write("edited", "sent uncommitted\n");
    let before = tree(&place.repo());
    let refused = work(&place).await.apply().unwrap_err();
    let W::DoesNotApply { lines, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(lines, ["changed on both sides: a.txt"]);
    assert_eq!(tree(&place.repo()), before, "not even the other files");
}

#[tokio::test]
async fn commits_come_as_a_branch_with_all_that_is_theirs() {
    let place = Place::new();
    place.prepare().await.unwrap();
    busy(&place);
    let got = work(&place).await;
    let brought = got.branch("from-guest").unwrap();
    assert_eq!(brought.commits, 1);
    assert!(got.uncommitted() > 0);
    let show = "log -1 --format=%H|%an|%ae|%ad|%s|%T from-guest";
    let theirs = place.git_guest("log -1 --format=%H|%an|%ae|%ad|%s|%T");
    assert_eq!(place.git(show), theirs);
    assert!(theirs.contains("|Bob|bob@example.org|") && theirs.contains("2020"), "{theirs}");
    assert_eq!(place.git("rev-parse HEAD from-guest~1").lines().count(), 2);
    assert_eq!(place.git("symbolic-ref HEAD"), "refs/heads/main\n");
    assert_eq!(place.git("status --porcelain"), "");
    place.git("fsck --strict");
    // Again, further; and a branch that stands elsewhere is left there.
    place.git_guest("-c user.name=Bob -c user.email=b@b commit -q --allow-empty -m more");
    work(&place).await.branch("from-guest").unwrap();
    assert_eq!(place.git("rev-parse from-guest"), place.git_guest("rev-parse HEAD"));
    place.git("commit -q --allow-empty -m host");
    place.git("branch elsewhere");
    for taken in ["elsewhere", "main"] {
        let refused = work(&place).await.branch(taken).unwrap_err();
        assert!(matches!(refused, W::BranchTaken { .. }), "{taken}: {refused:?}");
    }
}
