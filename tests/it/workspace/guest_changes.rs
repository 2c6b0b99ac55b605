//! The guest's own changes are never overwritten silently.

use std::fs;

use banger::host::workspace::{PlanOptions, WorkspaceError as W};

use super::Place;

fn lines(error: W) -> Vec<String> {
    match error {
        W::GuestChanged { lines, .. } => lines,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn they_are_listed_and_refused_and_given_up_only_when_asked() {
    let place = Place::new();
    place.prepare().await.unwrap();
    place.write_guest("a.txt", "changed in the guest\n");
    place.write_guest("sub/new.txt", "new in the guest\n");
    place.write_guest("sub/deep/x.log", "ignored\n");
    place.write_guest("target/out", "ignored\n");
    fs::remove_file(place.guest().join("src/b.txt")).unwrap();
    place.write("a.txt", "changed on the host\n");
    let told = lines(place.prepare().await.unwrap_err());
    assert_eq!(told, ["modified: a.txt", "deleted: src/b.txt", "new: sub/new.txt"]);
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("changed in the guest\n"));
    place.prepare_with(PlanOptions::default(), true).await.unwrap();
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("changed on the host\n"));
    assert_eq!(place.read_guest("src/b.txt").as_deref(), Some("two\n"));
    assert_eq!(place.read_guest("sub/new.txt"), None);
    assert_eq!(place.read_guest("sub/deep/x.log").as_deref(), Some("ignored\n"));
    assert_eq!(place.read_guest("target/out").as_deref(), Some("ignored\n"));
    place.prepare().await.unwrap();
}

#[tokio::test]
async fn commits_of_the_guest_count_and_looking_does_not() {
    let place = Place::new();
    place.prepare().await.unwrap();
    place.git_guest("status");
    place.git_guest("update-index --refresh --really-refresh");
    place.prepare().await.unwrap();
    place.write_guest("a.txt", "committed in the guest\n");
    place.git_guest("commit -q -a -m guest");
    let told = lines(place.prepare().await.unwrap_err());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("moved: refs/heads/main from "), "{told:?}");
    assert_eq!(told[1], "modified: a.txt");
    place.prepare_with(PlanOptions::default(), true).await.unwrap();
    assert_eq!(place.git_guest("rev-parse HEAD"), place.git("rev-parse HEAD"));
    assert_eq!(place.git_guest("status --porcelain"), "");
}

#[tokio::test]
async fn what_is_only_staged_counts_as_well() {
    let place = Place::new();
    place.write("b.txt", "two\n");
    place.commit("second");
    place.prepare().await.unwrap();
    let object = place.git_guest("rev-parse HEAD:b.txt");
    let stage = format!("update-index --cacheinfo 100755,{},b.txt", object.trim());
    for staged in ["rm -q --cached a.txt", "update-index --force-remove a.txt", &stage] {
        place.git_guest(staged);
        let told = lines(place.prepare().await.unwrap_err());
        assert_eq!(told.len(), 1, "{staged}: {told:?}");
        assert!(told[0].starts_with("staged: "), "{staged}: {told:?}");
        assert_ne!(place.git_guest("status --porcelain"), "", "nothing is lost of it");
        place.prepare_with(PlanOptions::default(), true).await.unwrap();
        assert_eq!(place.git_guest("status --porcelain"), "", "{staged}: given up");
    }
    // In another form it means the same, and what was staged here is what was sent.
    place.git_guest("update-index --index-version 4");
    place.prepare().await.unwrap();
    place.write("a.txt", "staged here\n");
    place.git("add a.txt");
    place.prepare().await.unwrap();
    place.git_guest("status");
    place.git_guest("update-index --really-refresh");
    place.prepare().await.unwrap();
    // An export is of files and commits.
    place.git_guest("rm -q --cached b.txt");
    assert_eq!(super::export::work(&place).await.uncommitted(), 0);
    fs::remove_file(place.guest().join(".git/index")).unwrap();
    let told = lines(place.prepare().await.unwrap_err());
    assert!(told[0].starts_with("staged: "), "{told:?}");
}

#[tokio::test]
async fn a_touched_file_of_the_same_content_is_no_change() {
    let place = Place::new();
    place.prepare().await.unwrap();
    let file = fs::File::options().write(true).open(place.guest().join("a.txt")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    place.prepare().await.unwrap();
    // A change that keeps size and time is found by what nobody can set.
    let kept = file.metadata().unwrap().modified().unwrap();
    fs::write(place.guest().join("a.txt"), "eno\n").unwrap();
    file.set_modified(kept).unwrap();
    assert_eq!(lines(place.prepare().await.unwrap_err()), ["modified: a.txt"]);
}

#[tokio::test]
async fn a_link_or_a_directory_in_the_way_is_found_and_never_entered() {
    let place = Place::new();
    place.prepare().await.unwrap();
    let outside = place.dir.path().join("guest/outside");
    fs::create_dir_all(&outside).unwrap();
    fs::remove_dir_all(place.guest().join("src")).unwrap();
    std::os::unix::fs::symlink("../outside", place.guest().join("src")).unwrap();
    fs::remove_file(place.guest().join("a.txt")).unwrap();
    place.write_guest("a.txt/x", "a directory now\n");
    let told = lines(place.prepare().await.unwrap_err());
    assert_eq!(told, ["deleted: a.txt", "new: a.txt/x", "new: src", "deleted: src/b.txt"]);
    place.prepare_with(PlanOptions::default(), true).await.unwrap();
    assert_eq!(place.read_guest("src/b.txt").as_deref(), Some("two\n"));
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("one\n"));
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_path_that_holds_something_else_is_left_alone() {
    let place = Place::new();
    place.write_guest("somebody/elses", "x");
    let refused = place.prepare().await.unwrap_err();
    assert!(matches!(refused, W::InUse { .. }), "{refused:?}");
    let refused = place.prepare_with(PlanOptions::default(), true).await.unwrap_err();
    assert!(matches!(refused, W::InUse { .. }), "not even then: {refused:?}");
    assert_eq!(place.read_guest("somebody/elses").as_deref(), Some("x"));
    fs::remove_dir_all(place.guest()).unwrap();
    fs::create_dir(place.guest()).unwrap();
    place.prepare().await.unwrap();
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("one\n"), "an empty one will do");
}
