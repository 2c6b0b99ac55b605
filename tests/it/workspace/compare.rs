//! Whether what was sent is stale, held against real repositories.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use banger::host::workspace::{PlanOptions, compare};
use banger::model::{Digest, Selection, Workspace, WorkspaceMode};

use super::Place;

/// What was sent of a place as it was.
struct Sent {
    workspace: Workspace,
    manifest: Vec<u8>,
}

impl Sent {
    async fn of(place: &Place, selection: Selection) -> Self {
        let options = PlanOptions { selection: selection.clone(), ..PlanOptions::default() };
        let plan = place.plan(options).unwrap();
        let workspace = Workspace {
            guest_path: place.guest().display().to_string(),
            host_path: place.repo().canonicalize().unwrap().display().to_string(),
            head: plan.repository.head.clone(),
            branch: plan.branch.clone(),
            mode: WorkspaceMode::Shallow,
            selection,
            files: 0,
            bytes: 0,
            manifest: Digest([0; 32]),
            prepared_unix_ms: 0,
        };
        let manifest = place.send(plan, true).await.unwrap().manifest;
        Self { workspace, manifest }
    }

    #[track_caller]
    fn is(&self, told: &str) {
        let compared = compare(&self.workspace, &self.manifest).unwrap();
        assert_eq!(compared.staleness.to_string(), told);
    }
}

#[tokio::test]
async fn the_table() {
    let place = Place::new();
    let sent = Sent::of(&place, Selection::default()).await;
    sent.is("clean");
    place.write("a.txt", "eno\n");
    sent.is("stale (1 file modified)");
    place.git("add a.txt");
    sent.is("stale (1 file modified)");
    place.write("a.txt", "one\n");
    place.git("add a.txt");
    sent.is("clean");
    let mode = |mode| {
        let file = place.repo().join("a.txt");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o755);
    sent.is("stale (1 file modified)");
    mode(0o644);
    place.write("new.txt", "new\n");
    sent.is("clean");
    place.git("add new.txt");
    sent.is("stale (1 file added)");
    fs::remove_file(place.repo().join("src/b.txt")).unwrap();
    sent.is("stale (1 file added, 1 removed)");
    place.commit("second");
    sent.is("stale (HEAD moved: 1 commit; 1 file added, 1 removed)");
    place.git("commit -q --allow-empty -m third");
    place.git("commit -q --amend --allow-empty -m other");
    sent.is("stale (HEAD moved: 2 commits; 1 file added, 1 removed)");
}

#[tokio::test]
async fn what_counts_is_what_was_sent_and_not_what_git_calls_dirty() {
    let place = Place::new();
    place.write("a.txt", "dirty\n");
    place.write("new.txt", "untracked\n");
    let untracked = Selection { include_untracked: true, ..Selection::default() };
    let sent = Sent::of(&place, untracked).await;
    sent.is("clean");
    place.git("checkout -q a.txt");
    sent.is("stale (1 file modified)");
    place.write("a.txt", "dirty\n");
    sent.is("clean");
    place.write("newer.txt", "untracked\n");
    sent.is("stale (1 file untracked)");
    place.write("x.log", "ignored\n");
    fs::remove_file(place.repo().join("new.txt")).unwrap();
    sent.is("stale (1 file removed, 1 untracked)");
}

#[tokio::test]
async fn a_repository_that_is_gone_is_unknown() {
    let place = Place::new();
    let sent = Sent::of(&place, Selection::default()).await;
    fs::rename(place.repo().join(".git"), place.repo().join("git")).unwrap();
    let told = compare(&sent.workspace, &sent.manifest).unwrap().staleness.to_string();
    assert!(told.starts_with("unknown (") && told.contains("no git repository"), "{told}");
    fs::remove_dir_all(place.repo()).unwrap();
    let told = compare(&sent.workspace, &sent.manifest).unwrap().staleness.to_string();
    assert!(told.starts_with("unknown ("), "{told}");
}

#[tokio::test]
async fn ten_thousand_files_are_compared_by_stat_alone() {
    let place = Place::new();
    for n in 0..10_000 {
        place.write(&format!("d{}/f{n}", n / 100), &n.to_string());
    }
    place.commit("many");
    let mut plan = place.plan(PlanOptions::default()).unwrap();
    // As if it had been some time ago.
    plan.manifest.scanned_ns += 1_000_000_000;
    let sent = place.send(plan, false).await.unwrap();
    let workspace = Sent::of(&place, Selection::default()).await.workspace;
    let began = std::time::Instant::now();
    let told = compare(&workspace, &sent.manifest).unwrap().staleness.to_string();
    eprintln!("10,000 files compared in {:?}", began.elapsed());
    assert_eq!(told, "clean");
}
