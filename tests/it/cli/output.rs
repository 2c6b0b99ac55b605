//! What lists and reports look like: for people, for programs, in pipes.

use banger::wire::reply::{
    Answer, CheckInfo, EventKindInfo, ImageInfo, KernelInfo, Reply, StatusInfo,
};
use banger::wire::request::Request;

use super::samples::{event, op, s, step, vm};
use crate::support::banger::{Finish, Surroundings};
use crate::support::canned::{Canned, Say};

fn vms() -> Canned {
    let (mut broken, mut web) = (vm("db", "crashed"), vm("web", "running"));
    (broken.address, broken.memory_mib) = (s("172.16.0.17"), 2048);
    web.created_unix_ms = 1000;
    Canned::always(vec![
        Reply::Part(Answer::Vms(vec![web])),
        Reply::Done(Answer::Vms(vec![broken])),
    ])
}

fn since_1970() -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    format!("{} years ago", now / 31_536_000)
}

#[test]
fn lists_are_aligned_and_come_in_parts() {
    let (daemon, here) = (vms(), Surroundings::new());
    let said = here.banger(&daemon.socket(), "vm list").said();
    let ago = since_1970();
    let expected = format!(
        "\
ID            NAME  STATE    IMAGE            IP           VCPU  MEM       DISK  WORKSPACE  CREATED
eeeeeeeeeeee  web   running  debian-bookworm  172.16.0.5   2     512 MiB   8G    -          {ago}
666666666666  db    crashed  debian-bookworm  172.16.0.17  2     2048 MiB  8G    -          {ago}
"
    );
    assert_eq!(said.out, expected);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn a_console_that_is_not_there_is_no_silence() {
    let why = event([7; 16], EventKindInfo::Note { text: s("web has no console") });
    let daemon = Canned::always(vec![why, Reply::Done(Answer::Nothing)]);
    let said = Surroundings::new().banger(&daemon.socket(), "vm logs web").said();
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    assert_eq!(said.err, "web has no console\n");
}

#[test]
fn ps_shows_what_runs() {
    let (daemon, here) = (vms(), Surroundings::new());
    let said = here.banger(&daemon.socket(), "ps -q").said();
    assert_eq!(said.out, "eeeeeeeeeeee\n");
    let said = here.banger(&daemon.socket(), "ps -aq").said();
    assert_eq!(said.out, "eeeeeeeeeeee\n666666666666\n");
    let said = here.banger(&daemon.socket(), "ps").said();
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
}

#[test]
fn json_has_the_wires_field_names() {
    let (daemon, here) = (vms(), Surroundings::new());
    let said = here.banger(&daemon.socket(), "vm list --json").said();
    let list: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(list[0]["name"], "web");
    assert_eq!(list[1]["state"], "crashed");
    assert_eq!(list[1]["memory_mib"], 2048);

    let none = Canned::always(vec![Reply::Done(Answer::Vms(vec![]))]);
    let said = here.banger(&none.socket(), "ps --json").said();
    assert_eq!(said.out, "[]\n");
}

#[test]
fn colours_only_where_wanted() {
    let (daemon, here) = (vms(), Surroundings::new());
    let plain = here.banger(&daemon.socket(), "ps").said();
    assert!(!plain.out.contains('\x1b'), "a pipe is no terminal");
    let forced = here.banger(&daemon.socket(), "ps --color always").env("NO_COLOR", "1").said();
    assert!(forced.out.contains("\x1b[32mrunning\x1b[0m"), "{:?}", forced.out);
    for (line, variable) in [("ps --color never", ""), ("ps", "1")] {
        // A terminal, so that `auto` would colour.
        let script = format!("script -qec 'banger {line}' /dev/null");
        let mut command = here.bash(&daemon.socket(), &script);
        let said = command.env("NO_COLOR", variable).env("TERM", "xterm").said();
        assert!(!said.out.contains('\x1b'), "{line}: {:?}", said.out);
    }
    let said = here
        .bash(&daemon.socket(), "script -qec 'banger ps' /dev/null")
        .env("TERM", "xterm")
        .said();
    assert!(said.out.contains("\x1b[32mrunning"), "{:?}", said.out);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let many: Vec<_> = (0..5000).map(|n| vm(&format!("vm-{n}"), "running")).collect();
    let parts = many.chunks(500).map(|part| Reply::Part(Answer::Vms(part.to_vec())));
    let replies = parts.chain([Reply::Done(Answer::Nothing)]).collect();
    let (daemon, here) = (Canned::always(replies), Surroundings::new());
    let script = "banger vm list | head -1; echo ${PIPESTATUS[0]}";
    let said = here.bash(&daemon.socket(), script).said();
    let lines: Vec<_> = said.out.lines().collect();
    assert!(lines[0].starts_with("ID "), "{lines:?}");
    assert_eq!(lines[1], "0");
    assert_eq!(said.err, "");
}

#[test]
fn a_full_disk_is_a_failure() {
    let (daemon, here) = (vms(), Surroundings::new());
    let said = here.bash(&daemon.socket(), "banger ps > /dev/full").said();
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("banger: write to stdout: No space left"), "{}", said.err);
}

#[test]
fn the_ladder_shows_each_step_with_its_times() {
    let mut operation = op("vm-start", "web", "rolled-back");
    (operation.step, operation.cause) = (Some(s("make-disks")), Some(s("no room")));
    operation.steps = vec![
        step("lease-tap", "undone", 0, 2),
        step("make-disks", "failed", 2, 1400),
        banger::wire::reply::StepInfo {
            step: s("spawn"),
            status: s("not-started"),
            started_unix_ms: None,
            ended_unix_ms: None,
            error: None,
        },
    ];
    let daemon = Canned::always(vec![Reply::Done(Answer::Ops(vec![operation]))]);
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "ops show op-ab").said();
    let expected = "\
operation  op-abababababababababababababababab
kind       vm-start
subject    web
started    2023-11-14 22:13:20
took       1.50 s
outcome    rolled-back
at step    make-disks
cause      no room

STEP        STATUS       UNDO    AT       TOOK    ERROR
lease-tap   done         undone  +0.0 ms  2 ms    -
make-disks  failed       -       +2 ms    1.40 s  no room
spawn       not-started  -       -        -       -
";
    assert_eq!(said.out, expected);
    let said = here.banger(&daemon.socket(), "ops list").said();
    assert!(said.out.starts_with("ID "), "{}", said.out);
    assert!(said.out.contains("  vm-start  web      rolled-back  1.50 s  "), "{}", said.out);
    let said = here.banger(&daemon.socket(), "ops show --json op-ab").said();
    let shown: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(shown["steps"][1]["status"], "failed");
}

#[test]
fn images_and_kernels_list() {
    let daemon = Canned::new(|envelope| {
        let image = ImageInfo {
            name: s("debian-bookworm"),
            digest: "d".repeat(64),
            size_bytes: 3 << 29,
            source: s("mmdebstrap bookworm"),
            created_unix_ms: 0,
            used_by: vec![s("web")],
        };
        let kernel = KernelInfo {
            name: s("debian-6.1"),
            digest: "e".repeat(64),
            version: s("6.1.0-50-cloud-amd64"),
            distro: s("debian"),
            arch: s("x86_64"),
            modules: 13,
            size_bytes: 53 << 20,
            source: s("linux.deb"),
            created_unix_ms: 0,
            used_by: vec![],
        };
        vec![Say::Reply(Reply::Done(match envelope.request {
            Request::ListImages | Request::ShowImage { .. } => Answer::Images(vec![image]),
            Request::ShowImageConfig { .. } => Answer::ImageConfig(None),
            _ => Answer::Kernels(vec![kernel]),
        }))]
    });
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "image list").said();
    let row = "debian-bookworm  dddddddddddd  1.5G  1    mmdebstrap bookworm  ";
    assert!(said.out.lines().nth(1).unwrap().starts_with(row), "{}", said.out);
    let said = here.banger(&daemon.socket(), "kernel ls").said();
    let row = "debian-6.1  debian  x86_64  6.1.0-50-cloud-amd64  13       53M   0    linux.deb  ";
    assert!(said.out.lines().nth(1).unwrap().starts_with(row), "{}", said.out);
    assert_eq!(here.banger(&daemon.socket(), "kernel list -q").said().out, "debian-6.1\n");
    let said = here.banger(&daemon.socket(), "image show debian-bookworm").said();
    let shown: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(shown["used_by"][0], "web");
}

#[test]
fn daemon_status_in_words_and_json() {
    let status = StatusInfo {
        version: s("0.1.0"),
        pid: 77,
        uid: 1000,
        started_unix_ms: 0,
        state_dir: s("/var/lib/banger"),
        socket: s("/run/banger/bangerd.sock"),
        simulated: true,
        bridge: s("br-fc"),
        subnet: s("172.16.0.1/24"),
        dns_listen: None,
        taps_ready: 4,
        taps_leased: 1,
        vms: 3,
        vms_running: 1,
        helper: s("ok"),
    };
    let daemon = Canned::always(vec![Reply::Done(Answer::Status(Box::new(status)))]);
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "daemon status").said();
    assert!(
        said.out.starts_with("version   0.1.0 (simulated host)\nprotocol  1\n"),
        "{}",
        said.out
    );
    assert!(said.out.contains("\ntaps      1 leased, 4 ready\nvms       3 (1 running)\n"));
    let said = here.banger(&daemon.socket(), "daemon status --json").said();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["vms_running"], 1);
}

#[test]
fn logs_pass_as_they_are() {
    let daemon = Canned::always(vec![
        Reply::Bytes(b"\x1b[1mboot\n".to_vec()),
        Reply::Bytes(b"login: ".to_vec()),
        Reply::Done(Answer::Nothing),
    ]);
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "vm logs web -n 5 --source vmm").said();
    assert_eq!(said.out, "\x1b[1mboot\nlogin: ");
    let Request::Logs(logs) = &daemon.requests()[0] else { panic!("{:?}", daemon.requests()) };
    assert_eq!((logs.vm.as_str(), logs.tail, logs.follow), ("web", Some(5), false));
}

#[test]
fn events_end_when_nobody_reads() {
    use banger::wire::reply::EventKindInfo as E;
    let daemon = Canned::new(|envelope| {
        let op = envelope.op_id;
        let mut say: Vec<Say> = (0..2000)
            .map(|_| Say::Reply(event(op, E::VmChanged { name: s("web"), state: s("running") })))
            .collect();
        say.push(Say::Silence);
        say
    });
    let here = Surroundings::new();
    let script = "banger events -f --json | head -2; echo ${PIPESTATUS[0]}";
    let said = here.bash(&daemon.socket(), script).said();
    let lines: Vec<_> = said.out.lines().collect();
    let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(first["kind"]["event"], "vm-changed");
    assert_eq!(lines[2], "0");
    let said = here.bash(&daemon.socket(), "banger events -f | head -1").said();
    assert!(said.out.starts_with("22:13:20.123  op-"), "{}", said.out);
    assert!(said.out.ends_with("  web is running\n"), "{}", said.out);
}

#[test]
fn the_doctor_adds_what_the_daemon_sees() {
    let checks = vec![
        CheckInfo { name: s("helper"), verdict: s("pass"), detail: s("answers"), hint: None },
        CheckInfo {
            name: s("kvm"),
            verdict: s("warn"),
            detail: s("the CPU shows neither svm nor vmx"),
            hint: Some(s("guests run under TCG, slowly")),
        },
    ];
    let daemon = Canned::always(vec![Reply::Done(Answer::Checks(checks))]);
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "doctor").said();
    let expected = format!(
        "\
PASS  socket    {}
PASS  protocol  version 1
PASS  helper    answers
WARN  kvm       the CPU shows neither svm nor vmx
                hint: guests run under TCG, slowly
",
        daemon.socket().display()
    );
    assert_eq!((said.code, said.out), (0, expected));
}

#[test]
fn the_doctor_explains_a_daemon_that_is_down() {
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    let said = here.banger(&none, "doctor").said();
    assert_eq!(said.code, 1);
    assert!(said.out.starts_with("FAIL  socket  cannot reach the daemon at "), "{}", said.out);
    assert!(said.out.contains("hint: start the daemon"), "{}", said.out);
    let said = here.banger(&none, "doctor --json").said();
    let checks: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &checks[0]["verdict"]), (1, &"fail".into()));
}
