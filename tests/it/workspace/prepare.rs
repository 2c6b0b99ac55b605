//! What arrives.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use banger::host::workspace::PlanOptions;
use banger::model::{Selection, WorkspaceMode};

use super::{Place, git, write};

fn options(selection: Selection) -> PlanOptions {
    PlanOptions { selection, ..PlanOptions::default() }
}

#[tokio::test]
async fn history_and_uncommitted_edits_travel() {
    let place = Place::new();
    place.write("a.txt", "one and a half\n");
    place.commit("second");
    place.write("src/b.txt", "edited\n");
    place.write("staged.txt", "staged\n");
    place.git("add staged.txt");
    fs::remove_file(place.repo().join(".gitignore")).unwrap();
    fs::set_permissions(place.repo().join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    let prepared = place.prepare().await.unwrap();
    assert_eq!(prepared.files, 3);
    for line in ["log --format=%H", "status --porcelain", "branch", "diff", "diff --cached"] {
        assert_eq!(place.git_guest(line), place.git(line), "{line}");
    }
    assert_eq!(place.git_guest("config user.email"), "ann@example.org\n");
    place.git_guest("fsck --strict");
}

#[tokio::test]
async fn git_in_the_guest_need_not_read_what_was_sent() {
    let place = Place::new();
    place.prepare().await.unwrap();
    // A file whose stat does not fit is told by this, before its content is looked at.
    assert_eq!(place.git_guest("diff-files"), "");
}

#[tokio::test]
async fn any_name_any_link_and_any_mode_arrives_as_it_is() {
    let place = Place::new();
    let odd: [&[u8]; 5] =
        [b"new\nline", b"not \xff utf8", b"-dash", b" blank ", "caf\u{e9}".as_bytes()];
    for name in odd {
        fs::write(place.repo().join(OsStr::from_bytes(name)), name).unwrap();
    }
    place.write("Case", "upper");
    place.write("case", "lower");
    symlink("/etc/passwd", place.repo().join("outside")).unwrap();
    symlink("src", place.repo().join("inside")).unwrap();
    place.commit("odd");
    for (path, mode) in [("Case", 0o600), ("src/b.txt", 0o666)] {
        fs::set_permissions(place.repo().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    place.prepare().await.unwrap();
    for name in odd {
        assert_eq!(fs::read(place.guest().join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(place.read_guest("Case").unwrap(), "upper");
    assert_eq!(place.read_guest("case").unwrap(), "lower");
    let link = |name: &str| fs::read_link(place.guest().join(name)).unwrap();
    assert_eq!(link("outside").to_str(), Some("/etc/passwd"), "kept, never followed");
    assert_eq!(link("inside").to_str(), Some("src"));
    let mode = |path: &str| fs::metadata(place.guest().join(path)).unwrap().permissions().mode();
    assert_eq!((mode("Case") & 0o777, mode("src/b.txt") & 0o777), (0o600, 0o666));
    assert_eq!(mode("src") & 0o777, 0o755, "a directory is nobody's but its owner's");
    let time = |root: std::path::PathBuf| fs::metadata(root.join("a.txt")).unwrap().modified();
    assert_eq!(time(place.guest()).unwrap(), time(place.repo()).unwrap());
}

#[tokio::test]
async fn what_is_not_tracked_travels_as_asked_for() {
    let place = Place::new();
    place.write("new.txt", "new");
    place.write("target/out", "built");
    place.write("target/deep/gen.rs", "generated");
    place.write("x.log", "log");
    let plan = place.plan(PlanOptions::default()).unwrap();
    assert_eq!(plan.untracked_left, 1);
    place.send(plan, false).await.unwrap();
    assert_eq!(place.read_guest("new.txt"), None);
    let untracked = Selection { include_untracked: true, ..Selection::default() };
    place.prepare_with(options(untracked), false).await.unwrap();
    assert_eq!(place.read_guest("new.txt").as_deref(), Some("new"));
    assert_eq!(place.read_guest("target/out"), None);
    let by_glob = Selection {
        include_ignored: vec!["target/**/*.rs".to_owned()],
        exclude: vec!["b.txt".to_owned()],
        ..Selection::default()
    };
    place.prepare_with(options(by_glob), false).await.unwrap();
    assert_eq!(place.read_guest("target/deep/gen.rs").as_deref(), Some("generated"));
    assert_eq!(place.read_guest("target/out"), None);
    assert_eq!(place.read_guest("new.txt"), None, "not meant any more");
    assert_eq!(place.read_guest("src/b.txt"), None, "excluded");
    assert_eq!(place.git_guest("status --porcelain"), "", "and not taken for deleted");
    place.write(".bangerignore", "# heavy\na.txt\n");
    place.prepare().await.unwrap();
    assert_eq!(place.read_guest("a.txt"), None);
    assert_eq!(place.read_guest("src/b.txt").as_deref(), Some("two\n"));
}

#[tokio::test]
async fn again_only_what_changed_travels_and_build_output_stays() {
    let place = Place::new();
    for n in 0..50 {
        place.write(&format!("many/f{n}"), &format!("content {n}"));
    }
    place.commit("many");
    place.prepare().await.unwrap();
    place.write_guest("target/out", "built in the guest");
    place.write_guest("many/noise.log", "ignored too");
    let same = place.prepare().await.unwrap();
    assert_eq!(same.sent_files, 0, "nothing changed");
    place.write("many/f7", "another content");
    fs::remove_file(place.repo().join("many/f8")).unwrap();
    place.write("fresh/f", "added");
    place.git("add fresh/f");
    let again = place.prepare().await.unwrap();
    // Two files, the index, and a pack with its own of what is staged.
    assert_eq!(again.sent_files, 5);
    assert_eq!(place.read_guest("many/f7").as_deref(), Some("another content"));
    assert_eq!(place.read_guest("many/f8"), None);
    assert_eq!(place.read_guest("fresh/f").as_deref(), Some("added"));
    assert_eq!(place.read_guest("target/out").as_deref(), Some("built in the guest"));
    place.commit("next");
    place.prepare().await.unwrap();
    assert_eq!(place.git_guest("log --format=%H"), place.git("log --format=%H"));
    assert_eq!(place.git_guest("status --porcelain"), "");
    place.git_guest("fsck --strict");
    assert_eq!(place.read_guest("many/noise.log").as_deref(), Some("ignored too"));
}

#[tokio::test]
async fn a_shell_that_sits_in_the_tree_stays_in_it() {
    let place = Place::new();
    place.prepare().await.unwrap();
    let before = fs::File::open(place.guest()).unwrap();
    place.write("a.txt", "more\n");
    place.prepare().await.unwrap();
    let inode = |meta: fs::Metadata| std::os::unix::fs::MetadataExt::ino(&meta);
    assert_eq!(
        inode(before.metadata().unwrap()),
        inode(fs::metadata(place.guest()).unwrap()),
        "changed in place"
    );
}

#[tokio::test]
async fn a_branch_of_the_guests_own() {
    let place = Place::new();
    let first = place.git("rev-parse HEAD");
    place.write("a.txt", "second\n");
    place.commit("second");
    let branch = |from: Option<&str>| PlanOptions {
        branch: Some("try/this".to_owned()),
        from: from.map(str::to_owned),
        ..PlanOptions::default()
    };
    place.prepare_with(branch(Some("HEAD~1")), false).await.unwrap();
    assert_eq!(place.git_guest("symbolic-ref HEAD"), "refs/heads/try/this\n");
    assert_eq!(place.git_guest("rev-parse HEAD"), first);
    assert_eq!(place.git_guest("status --porcelain"), " M a.txt\n", "the tree lies over it");
    place.prepare_with(branch(None), false).await.unwrap();
    assert_eq!(place.git_guest("rev-parse HEAD"), place.git("rev-parse HEAD"));
    assert_eq!(place.git_guest("status --porcelain"), "");
    assert_eq!(place.git("branch --list try/this"), "", "not on the host");
}

#[tokio::test]
async fn submodules_worktrees_sparse_trees_and_shallow_clones() {
    let place = Place::new();
    // A linked working tree: its `.git` is a file, its index elsewhere.
    place.git("worktree add -q ../linked -b linked");
    write(&place.dir.path().join("linked"), "a.txt", "in the linked one\n");
    let linked =
        banger::host::workspace::plan(&place.dir.path().join("linked/src"), PlanOptions::default());
    place.send(linked.unwrap(), false).await.unwrap();
    assert_eq!(place.git_guest("status --porcelain"), " M a.txt\n");
    assert_eq!(place.git_guest("symbolic-ref --short HEAD"), "linked\n");

    // A sparse one: what is not checked out is not taken for deleted.
    let sparse = Place::new();
    sparse.git("sparse-checkout set --no-cone /a.txt");
    sparse.prepare().await.unwrap();
    assert_eq!(sparse.read_guest("src/b.txt"), None);
    assert_eq!(sparse.git_guest("status --porcelain"), "");

    // The same by directories, with an index that is sparse itself; and one within it whole again.
    let cone = Place::new();
    cone.git("sparse-checkout set --cone --sparse-index none");
    assert!(cone.git("ls-files --sparse").contains("src/\n"), "the index names a directory");
    cone.prepare().await.unwrap();
    assert_eq!(cone.read_guest("src/b.txt"), None);
    assert_eq!(cone.git_guest("status --porcelain"), "");
    cone.git("sparse-checkout disable");
    cone.prepare().await.unwrap();
    assert_eq!(cone.read_guest("src/b.txt").as_deref(), Some("two\n"));
    assert_eq!(cone.git_guest("status --porcelain"), "");

    // One that does not have all of its history.
    let deep = Place::new();
    deep.write("a.txt", "second\n");
    deep.commit("second");
    let url = format!("file://{}", deep.repo().display());
    git(deep.dir.path(), &format!("clone -q --depth 1 {url} shallow"));
    let shallow = deep.dir.path().join("shallow");
    let plan = banger::host::workspace::plan(&shallow, PlanOptions::default()).unwrap();
    deep.send(plan, false).await.unwrap();
    assert_eq!(deep.git_guest("log --format=%s"), "second\n");
    deep.git_guest("fsck --strict");

    // Submodules, in the mode that takes them.
    let with = Place::new();
    let url = place.repo().display().to_string();
    with.git(&format!("submodule --quiet add {url} sub"));
    with.commit("sub");
    with.git("tag v1");
    let full = PlanOptions { mode: WorkspaceMode::FullCopy, ..PlanOptions::default() };
    with.prepare_with(full, false).await.unwrap();
    assert_eq!(with.read_guest("sub/a.txt").as_deref(), Some("one\n"));
    assert_eq!(with.git_guest("tag"), "v1\n");
    assert_eq!(with.git_guest("status --porcelain"), "", "no commit of theirs goes along");
}

#[tokio::test]
async fn what_has_no_files_here_or_is_a_repository_of_its_own_is_told() {
    // The working tree of a bare repository is a tree like others.
    let place = Place::new();
    let dir = place.dir.path();
    git(dir, "clone -q --bare repo bare");
    git(&dir.join("bare"), "worktree add -q ../tree main");
    let plan = banger::host::workspace::plan(&dir.join("tree"), PlanOptions::default()).unwrap();
    place.send(plan, false).await.unwrap();
    assert_eq!(place.git_guest("status --porcelain"), "");
    // A submodule that was not fetched, in a clone.
    let with = Place::new();
    with.git(&format!("submodule --quiet add {} sub", place.repo().display()));
    with.commit("sub");
    git(with.dir.path(), "clone -q repo clone");
    let clone = with.dir.path().join("clone");
    let full = PlanOptions { mode: WorkspaceMode::FullCopy, ..PlanOptions::default() };
    let plan = banger::host::workspace::plan(&clone, full).unwrap();
    assert_eq!(plan.absent, [b"sub"]);
    with.send(plan, false).await.unwrap();
    assert_eq!(with.git_guest("status --porcelain"), "", "and not taken for deleted");
    // One that is nobody's submodule, asked for with what is untracked.
    let outer = Place::new();
    outer.write("vendor/inner/f", "x");
    git(&outer.repo().join("vendor/inner"), "init -q");
    outer.write("vendor/plain", "y");
    let selection = Selection { include_untracked: true, ..Selection::default() };
    let plan = outer.plan(options(selection)).unwrap();
    assert_eq!(plan.nested, [b"vendor/inner/"]);
    outer.send(plan, false).await.unwrap();
    assert_eq!(outer.read_guest("vendor/plain").as_deref(), Some("y"));
    assert_eq!(outer.read_guest("vendor/inner/f"), None);
}

#[tokio::test]
async fn pointers_of_lfs_are_counted_and_travel_as_they_are() {
    let place = Place::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    place.write("big.bin", pointer);
    place.commit("lfs");
    let plan = place.plan(PlanOptions::default()).unwrap();
    assert_eq!(plan.pointers, 1);
    place.send(plan, false).await.unwrap();
    assert_eq!(place.read_guest("big.bin").as_deref(), Some(pointer));
}
