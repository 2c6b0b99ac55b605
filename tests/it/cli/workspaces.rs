//! Workspaces as their users meet them: the program, git, the real agent over SSH, a canned daemon.

use serde_json::Value;

use super::guests::Place;
use super::simulated;
use crate::support::banger::{Finish, Said};

/// A repository beside the guest's place, and both named in the shell.
struct Repo {
    place: Place,
}

impl Repo {
    fn new() -> Option<Self> {
        let repo = Self { place: Place::new()? };
        let made = repo.run(
            "mkdir repo && cd repo && git init -q -b main && git config user.name Ann && \
             git config user.email a@b && echo one > a && echo '*.log' > .gitignore && \
             git add -A && git commit -q -m first",
        );
        assert_eq!(made.code, 0, "{}", made.err);
        Some(repo)
    }

    fn run(&self, script: &str) -> Said {
        let guest = self.place.here.path().join("guest");
        self.place.said(&format!("G={}; {script}", guest.display()))
    }

    fn ok(&self, script: &str) -> String {
        let said = self.run(script);
        assert_eq!(said.code, 0, "{script}: {}{}", said.out, said.err);
        said.out
    }
}

#[test]
fn prepare_exec_edit_and_again() {
    let Some(repo) = Repo::new() else { return };
    let none = repo.run("banger vm workspace status web");
    assert_eq!(none.code, 4, "{}", none.err);
    let listed = repo.ok("banger vm workspace prepare none repo --dry-run");
    assert_eq!(listed, "mode: shallow\n.gitignore\na\n", "and nobody was asked");
    let shown = repo.ok("banger vm workspace prepare web repo --guest-path $G --json");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["mode"], &shown["branch"]), (&"shallow".into(), &"main".into()));
    assert_eq!(shown["files"], 2);
    // A command runs in it, and at home only if it is to.
    let here = repo.place.here.path().join("guest").display().to_string();
    assert_eq!(repo.ok("banger exec web -- pwd"), format!("{here}\n"));
    assert_ne!(repo.ok("banger exec --no-workspace web -- pwd"), format!("{here}\n"));
    assert_eq!(repo.ok("banger exec -w / web -- pwd"), "/\n");
    assert_eq!(repo.ok("banger vm workspace status web -q | head -1"), "state       clean\n");
    // Stale: a line, and it runs; up to date, if that is asked for; not at all, if that is.
    let stale = repo.run("echo two > repo/a; banger exec web -- cat a");
    assert_eq!((stale.code, stale.out.as_str()), (0, "one\n"));
    assert_eq!(stale.err.lines().count(), 1, "{}", stale.err);
    assert!(stale.err.contains("is stale (1 file modified)"), "{}", stale.err);
    let status = repo.run("banger vm workspace status web");
    assert_eq!(status.code, 1);
    assert!(status.out.contains("\ndiffers     1 modified: a\n"), "{}", status.out);
    let refused = repo.run("banger exec --require-clean web -- cat a");
    assert_eq!((refused.code, refused.out.as_str()), (125, ""));
    assert_eq!(repo.ok("banger exec --auto-prepare web -- cat a"), "two\n");
    let clean = repo.run("banger exec web -- cat a");
    assert_eq!((clean.out.as_str(), clean.err.as_str()), ("two\n", ""));
    // What the guest did is not overwritten.
    let told = repo.run(
        "banger exec web -- sh -c 'echo guest > a'; echo three > repo/a; \
                         banger exec --auto-prepare web -- true",
    );
    assert_eq!(told.code, 125, "{}", told.err);
    for part in ["was changed in the guest", "    modified: a\n", "export web", "--discard-guest"] {
        assert!(told.err.contains(part), "{part}: {}", told.err);
    }
    repo.ok("banger vm workspace prepare web repo --guest-path $G --discard-guest");
    assert_eq!(repo.ok("banger exec web -- cat a"), "three\n");
}

#[test]
fn what_was_done_in_the_guest_comes_back() {
    let Some(repo) = Repo::new() else { return };
    repo.ok("banger vm workspace prepare web repo --guest-path $G");
    let nothing = repo.run("banger vm workspace export web");
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""));
    assert!(nothing.err.starts_with("0 files and 0 commits past "), "{}", nothing.err);
    repo.ok("banger exec web -- sh -c 'echo more >> a; echo new > b; echo no > x.log'");
    repo.ok("banger vm workspace export web -q > patch && git -C repo apply --check ../patch");
    repo.ok("banger vm workspace export web -q -o other && cmp patch other");
    let stat = repo.ok("banger vm workspace export web --stat");
    assert!(stat.contains("2 files changed, 2 insertions(+)"), "{stat}");
    let applied = repo.ok("banger vm workspace export web --apply");
    assert_eq!(applied, "written: a\nwritten: b\n");
    assert_eq!(repo.ok("cat repo/a repo/b; ls repo/x.log 2>/dev/null || true"), "one\nmore\nnew\n");
    repo.ok("git -C $G -c user.name=B -c user.email=b@b commit -q -a -m guest");
    let head = repo.ok("banger vm workspace export web --as-branch from-web");
    assert_eq!(repo.ok("git -C repo log --format=%H -1 from-web"), head);
}

#[test]
fn run_takes_a_repository_along_and_gives_the_commands_status() {
    let Some(repo) = Repo::new() else { return };
    let said = repo.run("banger run --rm --guest-path $G repo -- sh -c 'cat a; exit 7'");
    assert_eq!((said.code, said.out.as_str()), (7, "one\n"), "{}", said.err);
    // What is wrong here is told before there is a VM.
    for (made, why) in [
        ("mkdir plain", "plain is in no git repository"),
        ("git init -q plain", "has no commits yet"),
        ("git init -q --bare plain", "is a bare repository"),
    ] {
        let said = repo.run(&format!("rm -rf plain; {made}; banger run --rm plain -- true"));
        assert_eq!(said.code, 125, "{made}");
        assert!(said.err.contains(why), "{made}: {}", said.err);
    }
}

#[test]
fn a_record_is_durable_and_goes_with_its_vm() {
    // The simulated guest has no agent, so what is prepared is put on record by hand elsewhere; here
    // it is that there is none.
    let (daemon, here) = simulated::place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --name web --memory 512M -q").code, 0);
    let list = run("vm list").out;
    assert!(list.lines().next().unwrap().ends_with("DISK  WORKSPACE  CREATED"), "{list}");
    let json = simulated::json(&run("vm show web"));
    assert_eq!(json["workspace"], Value::Null);
    for line in ["vm workspace status web", "vm workspace export web"] {
        let said = run(line);
        assert_eq!(said.code, 4, "{line}: {}", said.err);
        assert!(said.err.contains("nothing was prepared in it"), "{}", said.err);
    }
    assert_eq!(run("vm workspace status nope").code, 4);
}
