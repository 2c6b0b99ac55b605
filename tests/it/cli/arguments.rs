//! What is refused before the daemon is asked, and what is understood.

use banger::wire::reply::{Answer, Reply};
use banger::wire::request::{EventsOf, Health, LogSource, Request, Restart, Since, Upkeep};

use super::samples::{failure, s};
use crate::support::banger::{Finish, Surroundings};
use crate::support::canned::Canned;

#[test]
fn nonsense_is_refused_with_status_2() {
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    let table = [
        ("bogus", "unrecognized subcommand 'bogus'"),
        ("vm create --name Web", "letters a-z, digits and hyphens"),
        ("vm create --name abcdefabcdef", "looks like an id"),
        ("vm create --vcpu 0", "0 is not in 1.."),
        ("vm create --vcpu -1", "-1 is not in 1.."),
        ("vm create --memory 0", "must be more than zero"),
        ("vm create --memory -5G", "is not a size"),
        ("vm create --disk-size x", "is not a size"),
        ("vm create --restart sometimes", "is not no, on-failure, on-failure:N"),
        ("vm set web", "required arguments"),
        ("vm create --disk-size 99999999999T", "too large"),
        ("vm create --vmm xen", "possible values: auto, qemu, firecracker"),
        ("vm create -e 1A=b", "is not a name of letters"),
        ("vm stop", "required arguments were not provided"),
        ("vm stop web --grace soon", "is not a time"),
        ("vm kill web --signal BOGUS", "is not a signal"),
        ("image import Bad! x.tar", "letters a-z, digits and hyphens"),
        ("kernel import k", "required arguments were not provided"),
        ("kernel import k a.deb --kernel b", "cannot be used with"),
        ("kernel import k --modules d", "required arguments were not provided"),
        ("completion tcsh", "possible values: bash, zsh, fish, powershell"),
        ("vm logs web --tail x", "invalid digit"),
        ("vm workspace prepare web --guest-path repo", "no absolute path"),
        ("vm workspace prepare web --from HEAD", "--branch"),
        ("vm workspace export web --apply --stat", "cannot be used with"),
    ];
    for (line, why) in table {
        let said = here.banger(&none, line).said();
        assert_eq!(said.code, 2, "{line}: {}", said.err);
        assert!(said.err.contains(why), "{line}: {}", said.err);
        assert_eq!(said.out, "", "{line}");
    }
}

#[test]
fn where_a_guests_status_is_promised_nonsense_is_125() {
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    let table = [
        ("run --bogus -- true", "unexpected argument '--bogus'"),
        ("vm run --memory x", "is not a size"),
        ("run -d -- true", "cannot be used with"),
        ("run -d --rm", "cannot be used with"),
        ("run --branch x", "no PATH of a repository is named"),
        ("run --dry-run", "PATH"),
        ("vm exec --bogus web -- true", "unexpected argument '--bogus'"),
        ("vm exec web", "required arguments were not provided"),
        ("exec web true", "unexpected argument 'true'"),
        ("exec -- true", "required arguments were not provided"),
        ("ssh", "required arguments were not provided"),
    ];
    for (line, why) in table {
        let said = here.banger(&none, line).said();
        assert_eq!(said.code, 125, "{line}: {}", said.err);
        assert!(said.err.contains(why), "{line}: {}", said.err);
    }
    for line in ["run --help", "vm exec --help"] {
        let said = here.banger(&none, line).said();
        assert_eq!(said.code, 0, "{line}");
        assert!(said.out.contains("125 if banger itself failed"), "{line}: {}", said.out);
    }
}

fn events(since: Since, follow: bool) -> Request {
    Request::EventsOf(EventsOf { since, vm: None, op: None, follow })
}

#[test]
fn verbs_and_their_other_names_send_the_same() {
    let here = Surroundings::new();
    let vm = || s("web");
    let table = [
        ("vm start web", Request::StartVm { vm: vm() }),
        ("vm stop web", Request::StopVm { vm: vm(), grace_ms: None }),
        ("vm stop --grace 1m web", Request::StopVm { vm: vm(), grace_ms: Some(60_000) }),
        ("vm restart web --grace 500ms", Request::RestartVm { vm: vm(), grace_ms: Some(500) }),
        ("vm suspend web", Request::SuspendVm { vm: vm() }),
        ("vm resume web", Request::ResumeVm { vm: vm() }),
        ("vm start --discard-memory web", Request::StartVmCold { vm: vm() }),
        ("vm start --repair web", Request::StartVmRepaired { vm: vm() }),
        ("vm kill web", Request::KillVm { vm: vm(), signal: 9 }),
        ("vm kill -s term web", Request::KillVm { vm: vm(), signal: 15 }),
        ("vm delete web", Request::DeleteVm { vm: vm() }),
        ("vm rm web", Request::DeleteVm { vm: vm() }),
        ("vm show web", Request::ShowVm { vm: vm() }),
        ("vm show --json web", Request::ShowVm { vm: vm() }),
        ("vm ls", Request::ListVms),
        ("vm ssh web", Request::ShowProgram { vm: vm() }),
        ("ssh web", Request::ShowProgram { vm: vm() }),
        ("exec --no-workspace web -- a", Request::ShowProgram { vm: vm() }),
        ("vm health web", Request::ShowUpkeep { vms: vec![vm()] }),
        (
            "vm set web --health-cmd true --health-interval 5s --health-retries 2",
            Request::SetVmKept {
                vm: vm(),
                vcpu: None,
                memory_mib: None,
                disk_bytes: None,
                work_disk_bytes: None,
                upkeep: Upkeep {
                    restart: None,
                    health: Some(Health {
                        command: Some(s("true")),
                        interval_ms: Some(5000),
                        timeout_ms: None,
                        retries: Some(2),
                        start_period_ms: None,
                    }),
                },
            },
        ),
        (
            "vm set web --restart on-failure:3 --memory 1G",
            Request::SetVmKept {
                vm: vm(),
                vcpu: None,
                memory_mib: Some(1024),
                disk_bytes: None,
                work_disk_bytes: None,
                upkeep: Upkeep { restart: Some(Restart::OnFailure { max: Some(3) }), health: None },
            },
        ),
        ("image rm web", Request::DeleteImage { name: vm() }),
        ("kernel rm web", Request::DeleteKernel { name: vm() }),
        ("kernel delete web", Request::DeleteKernel { name: vm() }),
        ("kernel show web", Request::ShowKernel { name: vm() }),
        ("kernel default", Request::ShowDefaultKernel),
        ("kernel default web", Request::SetDefaultKernel { name: Some(vm()) }),
        ("kernel default --unset", Request::SetDefaultKernel { name: None }),
        ("ops list -n 3", Request::ListOps { limit: 3 }),
        ("events --since 7", events(Since::Seq(7), false)),
        ("events -f", events(Since::Seq(0), true)),
        ("events --since 2023-11-14T22:13:20Z", events(Since::UnixMs(1_700_000_000_000), false)),
        ("events --since 2023-11-14T22:13:20", events(Since::UnixMs(1_700_000_000_000), false)),
    ];
    for (line, request) in table {
        let daemon = Canned::always(vec![Reply::Failed(failure("refused", "no"))]);
        here.banger(&daemon.socket(), line).said();
        assert_eq!(daemon.requests(), [request], "{line}");
    }
    let daemon = Canned::always(vec![Reply::Done(Answer::Nothing)]);
    here.banger(&daemon.socket(), "vm logs -f -n 3 web").said();
    let Request::Logs(logs) = daemon.requests().remove(0) else { panic!() };
    assert_eq!((logs.source, logs.tail, logs.follow), (LogSource::Serial, Some(3), true));
}

#[test]
fn the_socket_is_named_by_flag_or_variable() {
    let here = Surroundings::new();
    let daemon = Canned::always(vec![Reply::Done(Answer::Vms(vec![]))]);
    let flag = format!("ps --socket {}", daemon.socket().display());
    let said = here.banger(std::path::Path::new("/nowhere"), &flag).said();
    assert_eq!(said.code, 0, "the flag wins: {}", said.err);
    let said = here.banger(&daemon.socket(), "--verbose ps").said();
    assert!(said.err.starts_with("socket /"), "{}", said.err);
    assert!(said.err.contains("operation op-"), "{}", said.err);
}

#[test]
fn versions_and_help_go_to_stdout() {
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    let version = format!("banger {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(here.banger(&none, "version").said().out, version);
    assert_eq!(here.banger(&none, "--version").said().out, version);
    let said = here.banger(&none, "version --json").said();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["protocol_max"], 1);
    let commands = [
        "",
        "vm",
        "vm create",
        "vm run",
        "vm start",
        "vm stop",
        "vm restart",
        "vm suspend",
        "vm resume",
        "vm kill",
        "vm delete",
        "vm list",
        "vm show",
        "vm exec",
        "vm ssh",
        "vm logs",
        "ps",
        "image build",
        "image build debian",
        "image import",
        "image list",
        "image show",
        "image delete",
        "kernel import",
        "kernel list",
        "kernel show",
        "kernel rm",
        "kernel pull",
        "kernel prune",
        "kernel default",
        "doctor",
        "ops list",
        "ops show",
        "ops watch",
        "ops cancel",
        "events",
        "daemon status",
        "completion",
        "version",
    ];
    for command in commands {
        let said = here.banger(&none, &format!("{command} --help")).said();
        assert_eq!(said.code, 0, "{command}");
        assert!(said.out.contains("Usage: banger"), "{command}: {}", said.out);
        let wide = said.out.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{command}");
    }
    let said = here.banger(&none, "").said();
    assert_eq!((said.code, said.out.as_str()), (2, ""));
}
