//! A guest that wants the host's git to run something: no command of the host's is its to choose.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use banger::host::workspace::{PlanOptions, Repository, fetch};

use super::export::work;
use super::{Place, agent};

/// In git's words: everything of a file goes through a command of that name.
const TRAPPED: &str = "* filter=trap diff=trap merge=trap -text\n*.long filter=long\n";

/// Sets off whatever git can be configured to run. `note`: where each command tells that it ran.
fn lay_traps(place: &Place) -> PathBuf {
    let (trap, note) = (place.dir.path().join("trap"), place.dir.path().join("note"));
    let text = format!("#!/bin/sh\necho \"$0 $*\" >> {}\ncat\n", note.display());
    fs::write(&trap, text).unwrap();
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
    for key in [
        "filter.trap.clean",
        "filter.trap.smudge",
        "filter.long.process",
        "diff.trap.command",
        "diff.trap.textconv",
        "diff.external",
        "merge.trap.driver",
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "uploadpack.packObjectsHook",
    ] {
        config(place, key, trap.to_str().unwrap());
    }
    for hook in [
        "post-checkout",
        "post-index-change",
        "post-merge",
        "pre-auto-gc",
        "reference-transaction",
        "update",
    ] {
        fs::copy(&trap, place.repo().join(".git/hooks").join(hook)).unwrap();
    }
    note
}

/// A value may have blanks.
fn config(place: &Place, key: &str, value: &str) {
    let mut git = Command::new("git");
    git.arg("-C").arg(place.repo()).args(["config", key, value]);
    assert!(git.status().unwrap().success());
}

#[tokio::test]
async fn attributes_of_the_guest_choose_no_command_of_the_hosts() {
    let place = Place::new();
    let lines: String = (0..20).map(|n| format!("line {n}\n")).collect();
    place.write("both.txt", &lines);
    place.write("some.long", "one\n");
    place.commit("second");
    place.prepare().await.unwrap();
    place.write_guest(".gitattributes", &format!("[attr]all filter=trap\n{TRAPPED}"));
    place.write_guest("src/.gitattributes", TRAPPED);
    place.write_guest("new/x.txt", "new\n");
    place.write_guest("both.txt", &lines.replace("line 2\n", "line two\n"));
    place.write_guest("some.long", "changed\n");
    place.git_guest("add -A");
    place.git_guest("-c user.name=Eve -c user.email=e@e commit -q -m guest");
    place.write_guest("a.txt", "uncommitted\n");
    place.write_guest("new/.gitattributes/rules", "not where git looks\n");
    place.write_guest("new/deep/.gitattributes", TRAPPED);
    place.write_guest("new/deep/y.txt", "new\n");
    let head = place.git_guest("rev-parse HEAD");
    // Both sides, so that there is something to merge.
    place.write("both.txt", &lines.replace("line 17\n", "line seventeen\n"));
    let note = lay_traps(&place);
    let got = work(&place).await;
    let patch = got.patch(None).unwrap();
    got.patch(Some(head.trim())).unwrap();
    got.branch("from-guest").unwrap();
    assert_eq!(got.apply().unwrap().merged, 1);
    assert!(!note.exists(), "ran: {}", fs::read_to_string(&note).unwrap());
    // The files are in the patch as what they are, text, and work nothing there.
    let text = String::from_utf8(patch.bytes).unwrap();
    for part in ["+* filter=trap", "+uncommitted", "b/new/.gitattributes/rules"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // They would, if git were let.
    place.git("add a.txt");
    assert!(note.exists(), "the traps are none");
}

#[tokio::test]
async fn filters_are_those_of_the_commit_on_record() {
    let place = Place::new();
    place.git("checkout -q -b other");
    place.write(".gitattributes", "*.txt filter=trap\n");
    place.commit("other");
    place.git("checkout -q main");
    place.write(".gitattributes", "*.loud filter=loud\n");
    place.write("x.loud", "one\n");
    place.commit("loud");
    config(&place, "filter.loud.clean", "tr a-z A-Z");
    place.git("add --renormalize .");
    place.commit("normal");
    place.prepare().await.unwrap();
    place.write_guest("x.loud", "two\n");
    place.write_guest("y.loud", "three\n");
    place.write_guest(".gitattributes", "");
    let note = lay_traps(&place);
    let text = String::from_utf8(work(&place).await.patch(None).unwrap().bytes).unwrap();
    assert!(text.contains("+TWO\n") && text.contains("+THREE\n"), "{text}");
    // Whatever commit the guest says that it stands on, if the host has one.
    let other = PlanOptions {
        branch: Some("x".to_owned()),
        from: Some("other".to_owned()),
        ..PlanOptions::default()
    };
    place.prepare_with(other, true).await.unwrap();
    place.write_guest("a.txt", "edited\n");
    let (stream, _agent) = agent();
    let repository = Repository::find(&place.repo()).unwrap();
    let guest = place.guest().display().to_string();
    let got = fetch(repository, &guest, "main", stream).await.unwrap();
    assert_eq!(got.base, place.git("rev-parse other").trim());
    let text = String::from_utf8(got.patch(None).unwrap().bytes).unwrap();
    assert!(text.contains("+edited\n"), "{text}");
    assert!(!note.exists(), "ran: {}", fs::read_to_string(&note).unwrap());
}
