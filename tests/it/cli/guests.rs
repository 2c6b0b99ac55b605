//! Commands and shells in a guest: the real agent, dialled with what a canned daemon says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use banger::model::OpId;
use banger::wire::reply::{Answer, EndpointInfo, OpInfo, ProgramInfo, Reply};
use banger::wire::request::Request;

use super::samples::{Workspaces, ended, op, vm};
use crate::support::banger::{Finish, Said, Surroundings};
use crate::support::canned::{Canned, Say};
use crate::support::guest::AgentGuest;

pub(super) struct Place {
    pub(super) here: Surroundings,
    daemon: Canned,
    _guest: AgentGuest,
}

impl Place {
    pub(super) fn new() -> Option<Self> {
        AgentGuest::start(&[("FROM_VM", "vm")]).map(Self::of)
    }

    pub(super) fn of(guest: AgentGuest) -> Self {
        Self::with_program(guest, None)
    }

    /// Of an image that says how it is run.
    pub(super) fn with_program(guest: AgentGuest, program: Option<ProgramInfo>) -> Self {
        let daemon = daemon_with(guest.endpoint(), program);
        Self { here: Surroundings::new(), daemon, _guest: guest }
    }

    fn bash(&self, script: &str) -> assert_cmd::Command {
        let mut command = self.here.bash(&self.daemon.socket(), script);
        command.current_dir(self.here.path()).env("TERM", "xterm");
        command
    }

    pub(super) fn said(&self, script: &str) -> Said {
        self.bash(script).said()
    }

    /// What the daemon was asked for so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.daemon.requests()
    }

    /// Runs `script` and, once the guest's command has made the file `ready`, `then`.
    fn once_ready(&self, script: &str, then: impl FnOnce() + Send) -> Said {
        let mut command = self.bash(script);
        let ready = self.here.path().join("ready");
        std::thread::scope(|scope| {
            let running = scope.spawn(move || command.said());
            let late = Instant::now() + Duration::from_secs(20);
            while !ready.exists() {
                assert!(Instant::now() < late && !running.is_finished(), "never ready");
                std::thread::yield_now();
            }
            then();
            running.join().unwrap()
        })
    }
}

/// One VM, `web`, that is made, entered and deleted at once.
pub(super) fn daemon_with(endpoint: EndpointInfo, program: Option<ProgramInfo>) -> Canned {
    let (endpoint, program) = (Arc::new(endpoint), program.map(Box::new));
    let kept = Workspaces::default();
    Canned::new(move |envelope| {
        let end = |kind: &str, vm| {
            let id = OpId(envelope.op_id).to_string();
            ended(OpInfo { id, ..op(kind, "web", "done") }, vm)
        };
        // Listened to while a command runs; nothing happens.
        if matches!(envelope.request, Request::Events { .. }) {
            return vec![];
        }
        vec![Say::Reply(match &envelope.request {
            Request::Endpoint { .. } => {
                Reply::Done(Answer::Endpoint(Box::new((*endpoint).clone())))
            }
            // A guest without a lane, as one that an earlier daemon started: SSH it is.
            Request::Lane { .. } => Reply::Done(Answer::Lane { socket: "/none/lane.sock".into() }),
            Request::CreateVm(_) | Request::CreateVmRun { .. } => {
                end("vm-create", Some(vm("web", "running")))
            }
            Request::ShowProgram { .. } => Reply::Done(Answer::Program(program.clone())),
            Request::DeleteVm { .. } => end("vm-delete", None),
            Request::ShowVm { .. } => Reply::Done(Answer::Vms(vec![vm("web", "running")])),
            request if kept.knows(request) => return kept.answer(request),
            other => panic!("{other:?}"),
        })]
    })
}

/// What was asked for, without the way to the guest's lane and the listening for the VM's end.
fn asked(place: &Place) -> Vec<Request> {
    let mut requests = place.daemon.requests();
    requests.retain(|request| {
        let passed_over = matches!(request, Request::Events { .. } | Request::Lane { .. });
        let looks = matches!(request, Request::ShowWorkspaces { .. } | Request::ShowProgram { .. });
        !passed_over && !looks
    });
    requests
}

#[test]
fn the_guests_status_is_ours() {
    let Some(place) = Place::new() else { return };
    let table = [
        ("true", 0),
        ("sh -c 'exit 42'", 42),
        ("sh -c 'kill -KILL $$'", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("/no/such/program", 127),
        ("/etc/passwd", 126),
    ];
    for (command, code) in table {
        let said = place.said(&format!("banger exec web -- {command}"));
        assert_eq!(said.code, code, "{command}: {}", said.err);
    }
}

#[test]
fn words_streams_and_surroundings_arrive() {
    let Some(place) = Place::new() else { return };
    let said = place.said(r"banger exec web -- printf '%s|' 'a b' '' '$HOME' '*'");
    assert_eq!((said.code, said.out.as_str()), (0, "a b||$HOME|*|"), "{}", said.err);
    let said = place.said("banger exec web -- sh -c 'echo out; echo err >&2'");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    let said = place.said(
        "A=here banger exec -e A -e B=two -e NOT_SET_HERE -w /usr web -- \
         sh -c 'echo $A $B ${NOT_SET_HERE-unset} $FROM_VM; pwd'",
    );
    assert_eq!(said.out, "here two unset vm\n/usr\n", "{}", said.err);
    let said = place.said("banger exec -w /no/such/directory web -- true");
    assert_eq!(said.code, 126, "{}", said.err);
    let said = place.said(
        "head -c 3000000 /dev/urandom > a; banger exec web -- cat < a > b && cmp a b && echo same",
    );
    assert_eq!(said.out, "same\n", "{}", said.err);
    let said = place.said("banger exec web -- sh -c 'read -r a; echo $a' <<< hello");
    assert_eq!(said.out, "hello\n");
}

#[test]
fn a_reader_that_has_gone_ends_the_command() {
    let Some(place) = Place::new() else { return };
    let said = place.said("banger exec web -- yes | head -1; echo ${PIPESTATUS[0]}");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("y\n0\n", ""));
}

#[test]
fn time_runs_out() {
    let Some(place) = Place::new() else { return };
    let said = place.said("banger exec --timeout 200ms web -- sleep 1000");
    assert_eq!(said.code, 125);
    assert!(said.err.contains("web: the command did not end within 200 ms"), "{}", said.err);
    let said = place.said("banger exec --timeout 20s web -- sh -c 'exit 3'");
    assert_eq!(said.code, 3);
}

/// A command that says so when it is interrupted, and that a second time does nothing about it.
const STUBBORN: &str = "sh -c 'trap \"echo interrupted; trap : INT\" INT; touch ready; \
                        while :; do sleep 0.02; done'";

#[test]
fn ctrl_c_reaches_the_command_and_a_second_one_ends_the_wait() {
    let Some(place) = Place::new() else { return };
    let dir = place.here.path().display().to_string();
    for (line, last) in [
        (format!("exec -w {dir} web"), Request::Endpoint { vm: "web".to_owned() }),
        ("run --rm".to_owned(), Request::DeleteVm { vm: vm("web", "").id }),
    ] {
        let command = STUBBORN.replace("touch ready", &format!("touch {dir}/ready"));
        let script = format!(
            "set -m; mkfifo go again; banger {line} -- {command} > out & pid=$!; \
             read -r < go; kill -INT $pid; read -r < again; kill -INT $pid; wait $pid"
        );
        let go = |name: &str| std::fs::write(place.here.path().join(name), "\n").unwrap();
        let said = place.once_ready(&script, || {
            go("go");
            let out = place.here.path().join("out");
            let late = Instant::now() + Duration::from_secs(20);
            while std::fs::read_to_string(&out).unwrap() != "interrupted\n" {
                assert!(Instant::now() < late, "the guest's command was not interrupted");
                std::thread::yield_now();
            }
            go("again");
        });
        assert_eq!(said.code, 130, "{line}: {}", said.err);
        assert_eq!(asked(&place).last(), Some(&last), "{line}");
        for name in ["ready", "out", "go", "again"] {
            std::fs::remove_file(place.here.path().join(name)).unwrap();
        }
    }
}

#[test]
fn run_creates_enters_and_with_rm_deletes() {
    let Some(place) = Place::new() else { return };
    let said = place.said("banger run --rm -- sh -c 'echo hello; exit 7'");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "hello\n", ""));
    let id = vm("web", "").id;
    let sent = asked(&place);
    assert!(matches!(&sent[0], Request::CreateVm(create) if create.start), "{sent:?}");
    let rest = [Request::Endpoint { vm: id.clone() }, Request::DeleteVm { vm: id.clone() }];
    assert_eq!(sent[1..], rest);

    let said = place.said("banger run -- true");
    assert_eq!(said.code, 0);
    assert_eq!(said.err, "web still runs; stop it with `banger vm stop web`\n");
    assert_eq!(asked(&place).last(), Some(&Request::ShowVm { vm: id }));
    assert_eq!(place.said("banger run -q -- true").err, "");
}

#[test]
fn without_a_terminal_the_shell_reads_stdin() {
    let Some(place) = Place::new() else { return };
    let said = place.said("echo 'echo in $FROM_VM; exit 3' | banger ssh web");
    assert_eq!((said.code, said.out.as_str()), (3, "in vm\n"), "{}", said.err);
    let said = place.said("echo 'exit 4' | banger run --rm");
    assert_eq!(said.code, 4, "{}", said.err);
}

#[test]
fn a_terminal_is_passed_on_and_left_as_it_was() {
    let Some(place) = Place::new() else { return };
    // `script` gives the inner shell a terminal of its own.
    let inner = "stty rows 33 cols 101; stty -a > before; \
                 banger ssh web -- sh -c 'tty; stty size; echo $TERM; exit 5'; echo code $?; \
                 stty -a > after; cmp before after && echo restored";
    let said = place.said(&format!("script -qec \"{inner}\" /dev/null", inner = quoted(inner)));
    // `script` types an end of file when its input ends, which a raw terminal shows as `^@`.
    let out = said.out.replace('\r', "").replace("^@", "");
    assert!(out.contains("/dev/pts/"), "{out}");
    assert!(out.ends_with("\n33 101\nxterm\ncode 5\nrestored\n"), "{out}");
    let said = place.said("banger exec -t web -- tty; banger exec -T web -- tty");
    assert!(said.out.starts_with("/dev/pts/"), "{}", said.out);
    assert!(said.out.ends_with("not a tty\n"), "{}", said.out);
}

fn quoted(script: &str) -> String {
    script.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$")
}

#[test]
fn a_guest_that_does_not_answer_is_explained_and_kept() {
    let Some(place) = Place::new() else { return };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let guest = AgentGuest::start(&[]).unwrap();
    let mut endpoint = guest.endpoint();
    endpoint.port = nobody;
    let daemon = daemon_with(endpoint, None);
    for line in ["exec web -- true", "run --rm -- true"] {
        let said = place.here.banger(&daemon.socket(), line).said();
        assert_eq!(said.code, 125, "{line}");
        let sentence = format!("banger: web: connect to guest at 127.0.0.1:{nobody}: ");
        assert!(said.err.contains(&sentence), "{line}: {}", said.err);
        assert!(said.err.contains("hint: what does its console say? banger vm logs web"));
    }
    let deleted = |request: &Request| matches!(request, Request::DeleteVm { .. });
    assert!(!daemon.requests().iter().any(deleted), "it stays for `vm logs`");

    // Another machine at the guest's address.
    let mut endpoint = guest.endpoint();
    endpoint.host_key = place._guest.endpoint().host_key;
    let daemon = daemon_with(endpoint, None);
    let said = place.here.banger(&daemon.socket(), "exec web -- true").said();
    assert_eq!(said.code, 125);
    assert!(said.err.contains("showed another host key"), "{}", said.err);
}
