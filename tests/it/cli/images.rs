//! Images that say how they are run: what commands in their VMs are, and what is shown of them.

use banger::wire::reply::ProgramInfo;
use banger::wire::request::Request;

use super::guests::Place;
use super::simulated::{json, place};
use crate::support::banger::Finish;
use crate::support::guest::AgentGuest;

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn program() -> ProgramInfo {
    ProgramInfo {
        entrypoint: own(&["/bin/sh", "-c", "echo \"$@\" as $(id -un) in $(pwd)", "entry"]),
        cmd: own(&["cmd"]),
        user: "nobody".to_owned(),
        workdir: "/usr".to_owned(),
        ..ProgramInfo::default()
    }
}

#[test]
fn commands_are_as_the_image_says_unless_the_user_says_otherwise() {
    let Some(guest) = AgentGuest::start(&[]) else { return };
    let place = Place::with_program(guest, Some(program()));
    let id = "'echo $(id -un) in $(pwd)'";
    for (line, said) in [
        ("run --rm --image x", "cmd as nobody in /usr"),
        ("run --rm --image x -- a 'b c'", "a b c as nobody in /usr"),
        ("run --rm --image x -u root -w /etc -- a", "a as root in /etc"),
        ("run --rm --image x -u 65534:0 -- a", "a as nobody in /usr"),
        ("run --rm --image x --entrypoint echo", ""),
        ("run --rm --image x --entrypoint '' -- echo alone", "alone"),
        (&format!("exec web -- sh -c {id}"), "nobody in /usr"),
        (&format!("exec -u root web -- sh -c {id}"), "root in /usr"),
        (&format!("exec -w /etc web -- sh -c {id}"), "nobody in /etc"),
        (&format!("vm ssh web -- sh -c {id}"), "nobody in /usr"),
        ("vm ssh web <<< 'echo $(id -un) in $(pwd)'", "nobody in /usr"),
    ] {
        let ran = place.said(&format!("banger {line}"));
        assert_eq!((ran.code, ran.out.trim_end()), (0, said), "{line}: {}", ran.err);
    }
}

#[test]
fn an_images_program_is_kept_running_only_where_nobody_runs_it() {
    let Some(guest) = AgentGuest::start(&[]) else { return };
    let place = Place::with_program(guest, Some(program()));
    let runs = |place: &Place| {
        let made = place.requests().into_iter().rev().find_map(|request| match request {
            Request::CreateVm(_) | Request::CreateVmOn { .. } => Some(false),
            Request::CreateVmRun { runs, .. } => Some(runs),
            _ => None,
        });
        made.unwrap()
    };
    for (line, kept) in [
        ("run --rm --image x -- a", false),
        ("run -d --image x", true),
        ("vm create --image x", true),
    ] {
        assert_eq!(place.said(&format!("banger {line}")).code, 0, "{line}");
        assert_eq!(runs(&place), kept, "{line}");
    }
    let refused = place.said("banger run -d --image x --entrypoint sh");
    assert_eq!(refused.code, 125, "{}", refused.err);
}

#[test]
fn what_an_image_says_is_shown_and_kept_by_its_vms() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    std::fs::create_dir(here.path().join("layout")).unwrap();
    std::fs::write(here.path().join("layout/oci-layout"), "{}").unwrap();
    assert_eq!(run("image import web ./layout -q").code, 0);
    let shown = json(&run("image show web"));
    assert_eq!(shown["name"], "web");
    assert_eq!(shown["config"]["entrypoint"][0], "/entry");
    assert_eq!(shown["config"]["env"][0], "FROM=image");
    assert_eq!(shown["config"]["exposed_ports"][0], "80/tcp");
    assert_eq!(json(&run("image show debian-bookworm"))["config"], serde_json::Value::Null);
    assert_eq!(run("image show nope").code, 4);
    assert_eq!(run("vm create --name a --image web -q").code, 0);
    assert_eq!(run("vm restart a -q").code, 0);
}

#[test]
fn names_of_an_image_are_counted_and_what_nobody_needs_goes() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    let names = || {
        let list = json(&run("image list --json"));
        let names = list.as_array().unwrap().iter().map(|one| one["name"].clone());
        names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(run("image build debian --suite sid -q").code, 0);
    let said = run("image tag debian-sid base");
    assert_eq!((said.code, said.out.as_str()), (0, "base\n"), "{}", said.err);
    let said = run("image tag debian-sid base");
    assert!(said.code == 0 && said.err.ends_with("base: is debian-sid already\n"), "{}", said.err);
    assert_eq!(run("image tag debian-sid debian-bookworm").code, 1, "that is another image");
    assert_eq!(run("image tag nope x").code, 4);
    assert_eq!(run("image tag base Bad!").code, 2);

    assert_eq!(run("vm create --no-start --name web --image debian-sid -q").code, 0);
    assert_eq!(run("image build debian --suite trixie -q").code, 0);
    assert_eq!(run("image tag debian-trixie spare -q").code, 0);
    let usage = json(&run("image df --json"));
    assert_eq!(usage.as_array().unwrap().len(), 3, "{usage}");
    let said = run("image df");
    assert!(said.err.contains("would be free"), "{}", said.err);
    assert!(said.out.contains("base, debian-sid"), "{}", said.out);

    let dry = run("image prune --dry-run");
    let line = |name: &str| {
        let line = dry.out.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{}", dry.out)).to_owned()
    };
    assert!(line("debian-bookworm").contains("it is the default image"), "{}", dry.out);
    assert!(line("base").contains("used by web"), "{}", dry.out);
    assert!(line("debian-trixie").contains("go with the last"), "{}", dry.out);
    assert!(line("spare").contains("no VM was made from it"), "{}", dry.out);
    assert!(dry.err.contains("2 names would go, which frees 65M"), "{}", dry.err);
    assert_eq!(names().len(), 5, "looking changes nothing");
    assert_eq!(json(&run("image prune --dry-run --json")), usage);
    let said = run("image prune");
    assert_eq!((said.code, said.out.as_str()), (0, "debian-trixie\nspare\n"), "{}", said.err);
    assert!(said.err.contains("2 names removed, 65M freed"), "{}", said.err);
    assert!(run("image prune").err.contains("nothing to remove"));
    // The content stays while another name has it, though a VM was made by the one that goes.
    assert_eq!(run("image delete debian-sid -q").code, 0);
    assert_eq!(run("vm start web -q").code, 0);
    assert_eq!(run("image delete base").code, 1, "the last name of what a VM boots from");
}

#[test]
fn a_stopped_vm_becomes_an_image_and_nothing_else_does() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    std::fs::create_dir(here.path().join("layout")).unwrap();
    std::fs::write(here.path().join("layout/oci-layout"), "{}").unwrap();
    assert_eq!(run("image import web ./layout -q").code, 0);
    assert_eq!(run("vm create --no-start --name a --image web -q").code, 0);
    let said = run("vm commit a other");
    assert!(said.code == 1 && said.err.contains("it never ran"), "{}", said.err);
    assert!(said.err.contains("banger image tag web NEW"), "{}", said.err);
    assert_eq!(run("vm start a -q").code, 0);
    let said = run("vm commit a other");
    assert!(said.code == 1 && said.err.contains("commit a: it is running"), "{}", said.err);
    assert_eq!(run("vm suspend a -q").code, 0);
    let said = run("vm commit a other");
    assert!(said.code == 1 && said.err.contains("suspended"), "{}", said.err);
    assert_eq!(run("vm resume a -q").code, 0);
    assert_eq!(run("vm stop a -q").code, 0);
    assert_eq!(run("vm commit nope other").code, 4);
    assert_eq!(run("vm commit a Bad!").code, 2);
    let said = run("vm commit a other");
    assert_eq!((said.code, said.out.as_str()), (0, "other\n"), "{}", said.err);
    let shown = json(&run("image show other"));
    assert_eq!(shown["source"], "root of a");
    assert_eq!(shown["config"]["stop_signal"], "SIGQUIT", "it is run as the VM's was");
    assert_eq!(run("vm commit a debian-bookworm").code, 1, "the name is taken");
    let ops = run("ops list").out;
    assert!(ops.contains("vm-commit"), "{ops}");
}

#[test]
fn an_export_is_there_whole_or_not_at_all() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    let said = run("image export debian-bookworm out.tar");
    assert_eq!((said.code, said.out.as_str()), (0, "out.tar\n"), "{}", said.err);
    let text = "simulated: debian-bookworm";
    assert_eq!(std::fs::read_to_string(here.path().join("out.tar")).unwrap(), text);
    assert_eq!(run("image export debian-bookworm -").out, text);
    let said = run("image export debian-bookworm out.tar");
    assert!(said.code == 1 && said.err.contains("is there already"), "{}", said.err);
    // What comes from a simulated host is no archive.
    let said = run("image export debian-bookworm dir");
    assert!(said.code == 1 && said.err.contains("write dir"), "{}", said.err);
    assert_eq!(run("image export nope other.tar").code, 4);
    let left: Vec<_> = std::fs::read_dir(here.path()).unwrap().collect();
    let names = left.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let odd: Vec<_> = names.filter(|name| name.contains("banger-") || name == "dir").collect();
    assert!(odd.is_empty(), "{odd:?}");
}
