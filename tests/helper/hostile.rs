//! Peers that may not ask, and bytes that make no sense.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use banger::model::{Code, chain};
use banger::wire::codec::{decode, encode};
use banger::wire::helper::{
    HELPER, HelperBody, HelperOk, HelperReply, HelperRequest, MAX_FRAME_BYTES, SpawnVmm,
};

use crate::support::{Host, OP, OWNER, STRANGER, is_root, new_vm, script};

/// What goes over the socket for one request.
fn bytes(body: HelperBody) -> Vec<u8> {
    let request = encode(&HelperRequest { op_id: OP.0, body }).unwrap();
    let length = u32::try_from(request.len()).unwrap().to_le_bytes();
    [HELPER.greeting().encode().as_slice(), &length, &request].concat()
}

/// Asks as another user. `None` when not even connected.
fn ask_as(host: &Host, uid: u32, body: HelperBody) -> Option<HelperReply> {
    let connect = format!("UNIX-CONNECT:{}", host.text("run/helper.sock"));
    let id = uid.to_string();
    #[allow(clippy::disallowed_methods, reason = "a peer of another uid")]
    let mut peer = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(["socat", "-t5", "-", &connect])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A peer that could not connect has closed its end.
    let _sent = peer.stdin.take().unwrap().write_all(&bytes(body));
    let output = peer.wait_with_output().unwrap();
    let reply = output.stdout.get(20..)?;
    Some(decode(reply).unwrap())
}

#[test]
fn only_the_owner_and_root_are_heard() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let socket = host.path("run/helper.sock");
    let meta = std::fs::metadata(&socket).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (OWNER, 0o600));
    assert_eq!(std::fs::metadata(host.path("run")).unwrap().mode() & 0o777, 0o711);

    let answered = |uid| matches!(ask_as(&host, uid, HelperBody::Status), Some(HelperReply::Ok(_)));
    assert!(answered(OWNER) && answered(0));
    assert_eq!(ask_as(&host, STRANGER, HelperBody::Status), None, "the socket's mode");
    // Were the mode ever wrong, the peer's uid still counts.
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    let bridge = HelperBody::RemoveBridge { bridge: "bgbr0".into() };
    let reply = ask_as(&host, STRANGER, bridge);
    assert_eq!(reply, Some(HelperReply::Denied { reason: "not allowed".into() }));
    let line = host.audit().pop().unwrap();
    assert_eq!((&line["verdict"], &line["peer_uid"]), (&"denied".into(), &STRANGER.into()));
    assert_eq!(line["request"], "-", "nothing of it was decoded");
}

#[tokio::test]
async fn nonsense_is_answered_or_dropped_without_harm() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    let pid = host.helper_pid();
    let hello = HELPER.greeting().encode();
    let oversized = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes();
    let whole = bytes(HelperBody::RemoveTap { tap: "bgtap0".into() });
    let mut nonsense: Vec<Vec<u8>> = vec![
        vec![],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        hello[..7].to_vec(),
        [hello.as_slice(), &oversized, &[0; 100]].concat(),
        [hello.as_slice(), &u32::MAX.to_le_bytes()].concat(),
        // A trailing byte, and a request cut anywhere.
        [whole.as_slice(), &[0]].concat(),
    ];
    nonsense.extend((16..whole.len()).map(|cut| whole[..cut].to_vec()));
    // Bytes without a pattern, the same in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut frame = vec![];
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            frame.push(state.to_le_bytes()[0]);
        }
        nonsense.push([hello.as_slice(), &64_u32.to_le_bytes(), &frame].concat());
    }
    for bytes in &nonsense {
        let mut stream = UnixStream::connect(host.path("run/helper.sock")).unwrap();
        // The helper may have closed before all was written.
        let _sent = stream.write_all(bytes);
        let _shut = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = vec![];
        let _end = stream.read_to_end(&mut rest);
    }
    assert!(host.helper_is_up());
    let status = host.client().status(OP).await.unwrap();
    assert_eq!((status.pid, status.owner_uid), (pid, OWNER));
    let lines = host.audit();
    let bad = |line: &&serde_json::Value| line["verdict"] == "malformed";
    assert!(lines.iter().filter(bad).count() >= 200, "{}", lines.len());
}

#[tokio::test]
async fn what_the_arguments_do_not_allow_is_denied() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.world();
    let vm = new_vm();
    let spawn = |program: &str, log: String| {
        let program = program.to_owned();
        HelperBody::SpawnVmm(SpawnVmm { vm: vm.0, program, args: script(vm, "exit"), log })
    };
    for body in [
        HelperBody::RemoveTap { tap: "lo".into() },
        HelperBody::RemoveBridge { bridge: "lo".into() },
        HelperBody::EnsureNat { bridge: "bgbr0".into(), vm: vm.0, address: [8, 8, 8, 8] },
        spawn("/bin/bash", host.text("state/log")),
        spawn("/bin/sh", "/etc/banger-must-not-appear".into()),
        HelperBody::AttachLoop { path: "/etc/passwd".into(), read_only: true },
    ] {
        let error = host.client().call(OP, body).await.unwrap_err();
        assert_eq!(error.code, Code::Denied, "{}", chain(&error));
    }
    assert_eq!(host.world(), before);
}

#[tokio::test]
async fn silent_peers_do_not_keep_others_out() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    // More than the helper serves at once; each is given up after its time.
    let silent: Vec<_> =
        (0..40).map(|_| UnixStream::connect(host.path("run/helper.sock")).unwrap()).collect();
    host.client().status(OP).await.unwrap();
    drop(silent);
}

#[test]
fn one_helper_to_a_run_directory() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    assert!(!host.start_another());
    assert!(std::fs::read_to_string(host.path("helper.log")).unwrap().contains("another helper"));
    assert!(host.helper_is_up());
    assert!(host.stop(nix::sys::signal::Signal::SIGTERM));
    assert!(!host.path("run/helper.sock").exists());
    host.start();
}

#[tokio::test]
async fn it_stays_small() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    for _ in 0..200 {
        let ok = host.client().call(OP, HelperBody::FindVmm { vm: new_vm().0 }).await.unwrap();
        assert_eq!(ok, HelperOk::Process(None));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.helper_pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // The code itself is far larger unoptimised; what is the process's own must be small either way.
    assert!(field("RssAnon:") < 4 * 1024, "{status}");
    if !cfg!(debug_assertions) {
        assert!(field("VmRSS:") < 8 * 1024, "{status}");
    }
    assert_eq!(field("Threads:"), 1);
}
