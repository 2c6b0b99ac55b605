//! What cannot be a workspace is refused with a sentence, before anything is sent.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use banger::host::workspace::{PlanOptions, WorkspaceError as W, plan};

use super::{Place, git};

fn refused(place: &Place) -> (W, String) {
    let error = place.plan(PlanOptions::default()).unwrap_err();
    let text = banger::model::chain(&error);
    (error, text)
}

#[test]
fn no_repository_no_commit_no_tree() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = plan(dir.path(), PlanOptions::default()).unwrap_err();
    assert!(matches!(nowhere, W::NotRepository { .. }), "{nowhere:?}");
    let missing = plan(&dir.path().join("no"), PlanOptions::default()).unwrap_err();
    assert!(banger::model::chain(&missing).ends_with("No such file or directory (os error 2)"));
    let place = Place::empty();
    assert!(matches!(refused(&place).0, W::NoCommits { .. }));
    git(dir.path(), "init -q --bare bare");
    let bare = plan(&dir.path().join("bare"), PlanOptions::default()).unwrap_err();
    assert!(matches!(bare, W::Bare { .. }), "{bare:?}");
    let place = Place::new();
    let inside = plan(&place.repo().join(".git"), PlanOptions::default()).unwrap_err();
    assert!(matches!(inside, W::Bare { .. }), "{inside:?}");
}

#[test]
fn in_the_middle_of_a_merge_or_a_rebase() {
    let place = Place::new();
    place.git("checkout -q -b other");
    place.write("a.txt", "theirs\n");
    place.commit("theirs");
    place.git("checkout -q main");
    place.write("a.txt", "ours\n");
    place.commit("ours");
    for (line, what) in
        [("merge other", "merge"), ("rebase other", "rebase"), ("cherry-pick other", "cherry-pick")]
    {
        let conflict = std::process::Command::new("git")
            .arg("-C")
            .arg(place.repo())
            .args(line.split(' '))
            .output()
            .unwrap();
        assert!(!conflict.status.success(), "{line} finds a conflict");
        let (error, text) = refused(&place);
        assert!(matches!(error, W::InProgress { .. }), "{text}");
        assert!(text.contains(&format!("in the middle of a {what}")), "{text}");
        place.git(&format!("{what} --abort"));
    }
    place.plan(PlanOptions::default()).unwrap();
}

#[test]
fn submodules_unless_they_are_asked_for() {
    let (inner, outer) = (Place::new(), Place::new());
    outer.git(&format!("submodule --quiet add {} sub", inner.repo().display()));
    let (error, text) = refused(&outer);
    assert!(matches!(error, W::Submodules { .. }));
    assert!(text.ends_with("has submodules: sub"), "{text}");
}

#[test]
fn what_cannot_be_read_is_named() {
    // Root reads everything.
    if nix::unistd::geteuid().is_root() {
        let place = Place::new();
        fs::remove_file(place.repo().join("a.txt")).unwrap();
        // A pipe is no file: as if it were not there.
        nix::unistd::mkfifo(&place.repo().join("a.txt"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let plan = place.plan(PlanOptions::default()).unwrap();
        assert!(plan.manifest.files.iter().all(|file| file.path != b"a.txt"));
        return;
    }
    let place = Place::new();
    let file = place.repo().join("a.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let (error, text) = refused(&place);
    assert!(matches!(error, W::Unreadable { .. }));
    assert_eq!(text, "cannot read a.txt");
}

#[test]
fn nothing_outside_is_read() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b.txt"), "secret").unwrap();
    // Where a tracked directory was, a link leads out.
    fs::remove_dir_all(place.repo().join("src")).unwrap();
    symlink("../outside", place.repo().join("src")).unwrap();
    let plan = place.plan(PlanOptions::default()).unwrap();
    assert!(plan.manifest.files.iter().all(|file| file.path != b"src/b.txt"));
    fs::write(outside.join("rules"), "a.txt\n").unwrap();
    symlink("../outside/rules", place.repo().join(".bangerignore")).unwrap();
    let (_, text) = refused(&place);
    assert!(text.starts_with(".bangerignore is no file"), "{text}");
}

#[test]
fn branches_and_revisions_that_are_none() {
    let place = Place::new();
    let asked = |branch: &str, from: Option<&str>| {
        let from = from.map(str::to_owned);
        place.plan(PlanOptions { branch: Some(branch.into()), from, ..PlanOptions::default() })
    };
    for bad in ["a b", "-x", "a..b", "@{-1}", ""] {
        assert!(matches!(asked(bad, None).unwrap_err(), W::BadBranch { .. }), "{bad}");
    }
    for bad in ["nowhere", "--all", "HEAD~9"] {
        let error = asked("x", Some(bad)).unwrap_err();
        assert!(matches!(error, W::NoRevision { .. }), "{bad}: {error:?}");
    }
}

#[tokio::test]
async fn a_partial_clone_that_lacks_history_and_one_that_lacks_nothing() {
    let place = Place::new();
    let whole = place.dir.path().join("whole");
    fs::rename(place.repo(), &whole).unwrap();
    git(&whole, "config uploadpack.allowFilter true");
    let url = format!("file://{}", whole.display());
    git(place.dir.path(), &format!("clone -q --filter=blob:none {url} repo"));
    place.prepare().await.expect("the one commit that there is was checked out");
    super::write(&whole, "a.txt", "between\n");
    git(&whole, "-c user.name=B -c user.email=b@b commit -q -a -m second");
    super::write(&whole, "a.txt", "three\n");
    git(&whole, "-c user.name=B -c user.email=b@b commit -q -a -m third");
    place.git("pull -q");
    let error = place.prepare().await.unwrap_err();
    assert!(matches!(error, W::Partial { .. }), "{error:?}");
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("one\n"), "nothing is done by halves");
    place.git("fetch -q --refetch --no-filter");
    place.prepare().await.expect("all is here now");
    assert_eq!(place.git_guest("show HEAD~1:a.txt"), "between\n");
}
