//! Workspaces as their users meet them: the program, git, the real agent over SSH, a canned daemon.

use banger::wire::request::Request;
use banger_agent::contract::exec::AGENT;
use banger_agent::contract::workspace::VERB;
use serde_json::Value;

use super::guests::Place;
use super::simulated;
use crate::support::banger::{Finish, Said};
use crate::support::guest::AgentGuest;

/// A repository beside the guest's place, and both named in the shell.
struct Repo {
    place: Place,
}

impl Repo {
    fn new() -> Option<Self> {
        Place::new().map(Self::of)
    }

    fn of(place: Place) -> Self {
        let repo = Self { place };
        let made = repo.run(
            "mkdir repo && cd repo && git init -q -b main && git config user.name Ann && \
             git config user.email a@b && echo one > a && echo '*.log' > .gitignore && \
             git add -A && git commit -q -m first",
        );
        assert_eq!(made.code, 0, "{}", made.err);
        repo
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
    assert_eq!(listed, "mode: shallow\n.gitignore\na\n", "and no VM was asked");
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
fn what_is_not_meant_any_more_goes_in_the_guest_and_is_told() {
    let Some(repo) = Repo::new() else { return };
    let prepare = "banger vm workspace prepare web repo --guest-path $G";
    repo.ok(&format!("echo 1 > repo/new; echo 2 > repo/old; {prepare} --include-untracked"));
    repo.ok("rm repo/old");
    let listed = repo.ok(&format!("{prepare} --dry-run"));
    assert_eq!(listed, "mode: shallow\n.gitignore\na\nremoved: new\nremoved: old\n");
    let listed = repo.ok(&format!("{prepare} --dry-run --include-untracked --json"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["removed"], serde_json::json!(["old"]));
    assert_eq!(repo.ok("cat $G/new $G/old"), "1\n2\n", "so far nothing was done");
    let told = repo.run(prepare);
    let note = "1 file sent before and left out now: gone in the guest, still here\n";
    assert!(told.code == 0 && told.err.contains(note), "{}", told.err);
    assert_eq!(repo.ok("ls $G; ls repo"), "a\na\nnew\n");
    let again = repo.run(prepare);
    assert!(!again.err.contains("sent before"), "{}", again.err);
    // What the guest has made of one is its own.
    repo.ok(&format!("{prepare} --include-untracked && echo mine > $G/new"));
    let refused = repo.run(prepare);
    assert!(refused.code == 1 && refused.err.contains("modified: new\n"), "{}", refused.err);
}

#[test]
fn a_command_has_no_manifest_sent_that_is_here() {
    let Some(repo) = Repo::new() else { return };
    repo.ok("banger vm workspace prepare web repo --guest-path $G");
    let fetched = || {
        let requests = repo.place.requests();
        requests.iter().filter(|one| matches!(one, Request::ShowManifest { .. })).count()
    };
    let stale = |said: &Said| said.err.contains("is stale (1 file modified)");
    assert!(!stale(&repo.run("banger exec web -- true; banger vm workspace status web")));
    assert!(stale(&repo.run("echo two > repo/a; banger exec web -- true")));
    assert_eq!(fetched(), 0, "whoever prepared it has it");
    // One that is gone, or of another time, or nowhere to be kept: asked for, and the same is told.
    assert!(stale(&repo.run("rm -r .cache; banger exec web -- true; banger exec web -- true")));
    assert_eq!(fetched(), 1);
    assert!(stale(&repo.run("echo x >> .cache/banger/manifests/*; banger exec web -- true")));
    assert_eq!(fetched(), 2);
    assert!(stale(&repo.run("export XDG_CACHE_HOME=/proc/none; banger exec web -- true")));
    assert_eq!(fetched(), 3);
}

#[test]
fn an_agent_of_before_workspaces_is_refused_with_the_way_out() {
    for word in [VERB, AGENT] {
        let Some(guest) = AgentGuest::older_than(word) else { return };
        let repo = Repo::of(Place::of(guest));
        for line in ["vm workspace prepare web repo", "run --name web repo"] {
            let said = repo.run(&format!("banger {line} --guest-path $G"));
            assert_ne!(said.code, 0, "{word}, {line}");
            let why = "web: the guest's agent is older than workspaces";
            assert!(said.err.contains(why), "{word}, {line}: {}", said.err);
            assert!(said.err.contains("banger vm restart web"), "{word}, {line}: {}", said.err);
        }
        assert_eq!(repo.run("banger vm workspace status web").code, 4, "nothing is on record");
        assert_eq!(repo.ok("banger exec web -- echo as before"), "as before\n", "{word}");
    }
}

#[test]
fn a_user_who_may_not_enter_it_is_at_home_and_told() {
    let Some(repo) = Repo::new() else { return };
    repo.ok("banger vm workspace prepare web repo --guest-path $G");
    let home = repo.run("chmod 700 . && banger exec -u nobody web -- pwd");
    assert_eq!((home.code, home.out.as_str()), (0, "/\n"), "{}", home.err);
    assert_eq!(home.err.lines().count(), 1, "{}", home.err);
    assert!(home.err.contains("nobody may not enter the workspace /"), "{}", home.err);
    // What was asked for by name is not made good by another place.
    for asked in ["-w", "--guest-path"] {
        let said = repo.run(&format!("banger exec -u nobody {asked} $G web -- pwd"));
        assert_eq!((said.code, said.out.as_str()), (126, ""), "{asked}");
        assert!(said.err.contains("/guest: Permission denied"), "{asked}: {}", said.err);
    }
    let here = repo.place.here.path().join("guest").display().to_string();
    assert_eq!(repo.ok("chmod 711 . && banger exec -u nobody web -- pwd"), format!("{here}\n"));
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
