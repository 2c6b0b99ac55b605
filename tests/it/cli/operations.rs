//! Operations: progress, several at once, Ctrl-C, a daemon that goes away.

use std::sync::atomic::{AtomicUsize, Ordering};

use banger::model::OpId;
use banger::wire::reply::{Answer, EventKindInfo as E, OpInfo, Reply, VmInfo};
use banger::wire::request::{CreateVm, ImageSource, KernelSource, Request, Vmm};

use super::samples::{ended, event, failure, op, s, step_done, vm};
use crate::support::banger::{Finish, Surroundings};
use crate::support::canned::{Canned, Say};

fn say(replies: impl IntoIterator<Item = Reply>) -> Vec<Say> {
    replies.into_iter().map(Say::Reply).collect()
}

/// The operation of an envelope, ended like this.
fn end(op_id: [u8; 16], kind: &str, subject: &str, outcome: &str, vm: Option<VmInfo>) -> Reply {
    ended(OpInfo { id: OpId(op_id).to_string(), ..op(kind, subject, outcome) }, vm)
}

#[test]
fn create_says_what_it_does_and_prints_the_name() {
    let daemon = Canned::new(|envelope| {
        let id = envelope.op_id;
        say([
            Reply::Accepted { op_id: id },
            event(id, E::OpStarted { op: s("vm-create"), subject: s("web") }),
            event(id, E::StepStarted { step: s("lease-tap") }),
            step_done(id, "lease-tap"),
            // Another operation's news on the same connection.
            step_done([9; 16], "not-ours"),
            event(id, E::Progress { text: s("unpacked 1200 files") }),
            step_done(id, "wait-ready"),
            end(id, "vm-create", "web", "done", Some(vm("web", "running"))),
        ])
    });
    let here = Surroundings::new();
    let line = "vm create --name web --vcpu 2 --memory 512M --disk-size 8G --work-disk-size 1G \
                --nat -e A=b=c --env PATH --env NOT_SET_HERE --vmm qemu --image i --kernel k";
    let said = here.banger(&daemon.socket(), line).said();
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
    let expected = "\
lease-tap  12 ms
unpacked 1200 files
wait-ready  12 ms
spec: 2 vcpu | 512 MiB | 8G disk
web is running at 172.16.0.5 after ";
    assert!(said.err.starts_with(expected), "{}", said.err);
    let Request::CreateVmRun { create: asked, .. } = daemon.requests().remove(0) else { panic!() };
    let path = asked.env[1].1.clone();
    let wanted = CreateVm {
        name: Some(s("web")),
        image: Some(s("i")),
        kernel: Some(s("k")),
        vcpu: Some(2),
        memory_mib: Some(512),
        disk_bytes: Some(8 << 30),
        work_disk_bytes: Some(1 << 30),
        nat: true,
        env: vec![(s("A"), s("b=c")), (s("PATH"), path)],
        vmm: Vmm::Qemu,
        start: true,
    };
    assert_eq!(asked, wanted);

    let said = here.banger(&daemon.socket(), "vm create -q --no-start").said();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("web\n", ""));
    let Request::CreateVmRun { create: asked, .. } = daemon.requests().remove(1) else { panic!() };
    assert_eq!(asked, CreateVm::default());

    let said = here.banger(&daemon.socket(), "run -d --json").said();
    assert_eq!(said.code, 125, "run has no --json: {}", said.err);
    let said = here.banger(&daemon.socket(), "run -d").said();
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"));
}

#[test]
fn an_operation_that_was_undone_is_a_failure_with_the_vms_story() {
    let daemon = Canned::new(|envelope| {
        let id = OpId(envelope.op_id).to_string();
        let mut told = failure("guest-unreachable", "x");
        told.op_id = Some(id.clone());
        told.detail = vec![s("Kernel panic")];
        told.hints = vec![s("banger vm logs web")];
        let mut left = vm("web", "stopped");
        left.last_failure = Some(told);
        let mut operation = op("vm-start", "web", "rolled-back");
        (operation.id, operation.step) = (id, Some(s("wait-ready")));
        operation.cause = Some(s("the guest never came up"));
        say([ended(operation, Some(left))])
    });
    let said = Surroundings::new().banger(&daemon.socket(), "vm start web").said();
    let op = OpId(daemon.envelopes()[0].op_id);
    let expected = format!(
        "\
banger: vm start web failed at wait-ready and was undone: the guest never came up ({op})
    Kernel panic
hint: banger vm logs web
"
    );
    assert_eq!((said.code, said.err), (1, expected));
}

#[test]
fn several_are_reported_in_order_and_one_bad_stops_none() {
    let daemon = Canned::new(|envelope| match &envelope.request {
        Request::ShowVm { vm: word } | Request::StopVm { vm: word, .. } if word == "nope" => {
            say([Reply::Failed(failure("not-found", "no VM is called nope"))])
        }
        Request::ShowVm { vm: word } => {
            // Two words for one VM.
            let name = if word == "aaaa" { "web" } else { word };
            say([Reply::Done(Answer::Vms(vec![vm(name, "running")]))])
        }
        Request::StopVm { vm: word, .. } if word == "web" => {
            // The first of them is done last.
            let db =
                |request: &Request| matches!(request, Request::StopVm { vm, .. } if vm == "db");
            let mut said = vec![Say::Await(db)];
            said.extend(say([end(envelope.op_id, "vm-stop", "web", "done", None)]));
            said
        }
        Request::StopVm { vm: word, .. } => {
            let mut operation = op("vm-stop", word, "unchanged");
            operation.cause = Some(s("already stopped"));
            say([step_done(envelope.op_id, "stop-guest"), ended(operation, None)])
        }
        other => panic!("{other:?}"),
    });
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "vm stop --grace 2s web nope db web aaaa").said();
    assert_eq!((said.code, said.out.as_str()), (1, "web\ndb\n"), "{}", said.err);
    assert!(said.err.contains("db  stop-guest  12 ms\n"), "{}", said.err);
    assert!(said.err.contains("db: already stopped\n"), "{}", said.err);
    assert!(said.err.contains("banger: no VM is called nope (op-"), "{}", said.err);
    let stops: Vec<_> = daemon
        .requests()
        .into_iter()
        .filter(|request| matches!(request, Request::StopVm { grace_ms: Some(2000), .. }))
        .collect();
    assert_eq!(stops.len(), 2, "each VM once: {stops:?}");
    assert_eq!(here.log().len(), 4);

    let said = here.banger(&daemon.socket(), "vm stop nope nope").said();
    assert_eq!(said.code, 4);
}

#[test]
fn a_daemon_that_comes_back_is_asked_for_the_same_operation() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let daemon = Canned::new(|envelope| match CALLS.fetch_add(1, Ordering::SeqCst) {
        0 => vec![Say::Reply(Reply::Accepted { op_id: envelope.op_id }), Say::HangUp],
        _ => say([end(envelope.op_id, "vm-start", "web", "done", None)]),
    });
    let said = Surroundings::new().banger(&daemon.socket(), "vm start web").said();
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"), "{}", said.err);
    assert!(said.err.contains("lost the daemon; waiting for it to come back"), "{}", said.err);
    let sent = daemon.envelopes();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
}

/// Runs `banger` until the daemon was asked for an operation, interrupts it, and waits for its end.
fn interrupted(daemon: &Canned, here: &Surroundings, line: &str) -> crate::support::banger::Said {
    let script = format!("banger {line} & pid=$!; read -r < go; kill -INT $pid; wait $pid");
    // A job in the background of a shell without job control ignores SIGINT; `-m` turns it on.
    let script = format!("set -m; mkfifo go; {script}");
    let mut command = here.bash(&daemon.socket(), &script);
    command.current_dir(here.path());
    std::thread::scope(|scope| {
        let running = scope.spawn(move || command.said());
        daemon.wait_for(|request| {
            let creates = matches!(request, Request::CreateVm(_) | Request::CreateVmRun { .. });
            creates || matches!(request, Request::DeleteVm { .. })
        });
        std::fs::write(here.path().join("go"), "\n").unwrap();
        running.join().unwrap()
    })
}

fn cancelling(vm_left: Option<VmInfo>) -> Canned {
    let cancelled: fn(&Request) -> bool = |request| matches!(request, Request::CancelOp { .. });
    Canned::new(move |envelope| match &envelope.request {
        Request::CreateVm(_) | Request::CreateVmRun { .. } => {
            let mut operation = op("vm-create", "web", "rolled-back");
            operation.id = OpId(envelope.op_id).to_string();
            operation.cause = Some(s("cancelled"));
            vec![
                Say::Reply(Reply::Accepted { op_id: envelope.op_id }),
                Say::Await(cancelled),
                Say::Reply(ended(operation, vm_left.clone())),
            ]
        }
        Request::CancelOp { .. } => say([Reply::Done(Answer::Nothing)]),
        Request::DeleteVm { .. } => say([end(envelope.op_id, "vm-delete", "web", "done", None)]),
        other => panic!("{other:?}"),
    })
}

#[test]
fn ctrl_c_takes_back_what_is_built() {
    let here = Surroundings::new();
    for line in ["vm create --name web", "run --name web", "run --rm --name web -- true"] {
        let (daemon, here) = (cancelling(None), Surroundings::new());
        let said = interrupted(&daemon, &here, line);
        assert_eq!(said.code, 130, "{line}: {}", said.err);
        assert!(said.err.contains("cancelling"), "{}", said.err);
        let sent = daemon.envelopes();
        let create = OpId(sent[0].op_id).to_string();
        assert!(
            sent.iter().any(|e| e.request == Request::CancelOp { op: create.clone() }),
            "{sent:?}"
        );
        assert_eq!(sent.len(), 2, "{sent:?}");
    }
    // What is left of a VM that was only to be run is deleted, by its id.
    let daemon = cancelling(Some(vm("web", "stopped")));
    let said = interrupted(&daemon, &here, "run --name web -- true");
    assert_eq!(said.code, 130, "{}", said.err);
    let id = vm("web", "stopped").id;
    assert_eq!(daemon.requests().last(), Some(&Request::DeleteVm { vm: id }));
}

#[test]
fn ctrl_c_leaves_what_tears_down() {
    let daemon = Canned::new(|envelope| {
        vec![Say::Reply(Reply::Accepted { op_id: envelope.op_id }), Say::Silence]
    });
    let here = Surroundings::new();
    let said = interrupted(&daemon, &here, "vm delete web");
    assert_eq!(said.code, 130);
    assert!(said.err.contains("interrupted; the daemon goes on (op-"), "{}", said.err);
    assert!(said.err.contains("\nhint: watch it: banger ops watch op-"), "{}", said.err);
    assert_eq!(daemon.requests().len(), 1, "nothing was cancelled");
}

#[test]
fn imports_send_absolute_paths_of_the_right_kind() {
    let daemon =
        Canned::new(|envelope| say([end(envelope.op_id, "image-import", "mine", "done", None)]));
    let here = Surroundings::new();
    std::fs::create_dir(here.path().join("root")).unwrap();
    std::fs::write(here.path().join("root.tar"), "").unwrap();
    let at = |name: &str| here.path().canonicalize().unwrap().join(name).display().to_string();
    for line in [
        "image import mine root.tar",
        "image import mine ./root",
        "kernel import k root.tar",
        "kernel import k --kernel root.tar --modules root",
        "image build debian --include git,curl --include vim --mirror http://m",
    ] {
        let said = here.banger(&daemon.socket(), line).current_dir(here.path()).said();
        assert_eq!(said.code, 0, "{line}: {}", said.err);
    }
    let expected = [
        Request::ImportImage { name: s("mine"), source: ImageSource::Tar { path: at("root.tar") } },
        Request::ImportImage {
            name: s("mine"),
            source: ImageSource::Directory { path: at("root") },
        },
        Request::ImportKernel {
            name: s("k"),
            source: KernelSource::Packages { paths: vec![at("root.tar")] },
        },
        Request::ImportKernel {
            name: s("k"),
            source: KernelSource::Files { kernel: at("root.tar"), modules: Some(at("root")) },
        },
        Request::BuildDebian {
            name: s("debian-bookworm"),
            suite: s("bookworm"),
            include: vec![s("git"), s("curl"), s("vim")],
            mirror: Some(s("http://m")),
        },
    ];
    assert_eq!(daemon.requests(), expected);
    let said = here.banger(&daemon.socket(), "image import mine none.tar").said();
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("banger: none.tar: No such file or directory"), "{}", said.err);
}

#[test]
fn operations_can_be_watched_and_cancelled() {
    let daemon = Canned::new(|envelope| match &envelope.request {
        Request::WatchOp { .. } => {
            say([step_done([1; 16], "lease-tap"), ended(op("vm-start", "web", "stuck"), None)])
        }
        Request::ShowOp { .. } => {
            say([Reply::Done(Answer::Ops(vec![op("vm-start", "web", "rolled-back")]))])
        }
        _ => say([Reply::Done(Answer::Nothing)]),
    });
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "ops watch op-abab").said();
    assert_eq!(said.code, 1);
    assert_eq!(said.err, "lease-tap  12 ms\n");
    assert!(said.out.contains("outcome    stuck\n"), "{}", said.out);
    let said = here.banger(&daemon.socket(), "ops cancel op-abab").said();
    let id = op("vm-start", "web", "rolled-back").id;
    assert_eq!((said.code, said.out), (0, format!("{id}\n")));
    assert!(said.err.contains("vm-start web was cancelled at "), "{}", said.err);
    assert!(said.err.ends_with(" and is undone\n"), "{}", said.err);
    assert_eq!(daemon.requests()[1], Request::CancelOp { op: s("op-abab") });
}
