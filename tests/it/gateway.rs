//! The daemon's socket under clients that are broken, old or hostile: each is answered or dropped,
//! and the next one is served as if nothing had been.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use banger::wire::frame::Frames;
use banger::wire::hello::DAEMON;
use banger::wire::reply::Reply;
use banger::wire::request::{CreateVm, Envelope, ImageSource, Request};

use crate::support::banger::{Finish, Surroundings};
use crate::support::simulated::Simulated;

const LIMIT: Duration = Duration::from_secs(20);

fn connect(daemon: &Simulated) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn greeted(daemon: &Simulated) -> UnixStream {
    let mut stream = connect(daemon);
    stream.write_all(b"BANGER-D\x01\x00\x01\x00\x00\x00\x00\x00").unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"BANGER-D\x01\x00\x01\x00\x00\x00\x00\x00");
    stream
}

/// Whatever it says, it ends; it never hangs and never answers with success.
fn ends(mut stream: UnixStream) -> Vec<u8> {
    let mut said = vec![];
    match stream.read_to_end(&mut said) {
        // Closed with bytes of ours unread: as much of an end as any.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => drop(other.unwrap_or_else(|error| panic!("still open: {error}"))),
    }
    said
}

fn served(daemon: &Simulated) {
    let ping = [vec![18, 0, 0, 0], vec![7; 16], vec![0, 0]].concat();
    let mut stream = greeted(daemon);
    stream.write_all(&ping).unwrap();
    let mut reply = [0; 6];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], [2, 0, 0, 0], "a frame of two bytes: Done(Nothing)");
}

#[test]
fn another_version_is_refused_with_our_bounds() {
    let daemon = Simulated::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"BANGER-D\x07\x00\x09\x00\x00\x00\x00\x00").unwrap();
    assert_eq!(ends(stream), b"BANGER-D\x01\x00\x01\x00\x01\x00\x00\x00");
    served(&daemon);
}

#[test]
fn strangers_oversized_truncated_and_random_bytes_harm_nobody() {
    let daemon = Simulated::start("");
    let mut stranger = connect(&daemon);
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    ends(stranger);

    let mut oversized = greeted(&daemon);
    oversized.write_all(&u32::MAX.to_le_bytes()).unwrap();
    ends(oversized);

    let mut truncated = greeted(&daemon);
    truncated.write_all(&[200, 0, 0, 0, 1, 2, 3]).unwrap();
    truncated.shutdown(std::net::Shutdown::Write).unwrap();
    ends(truncated);

    // A fixed sequence (SplitMix64), so that a failure can be seen again.
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        u8::try_from((mixed ^ (mixed >> 27)) & 0xff).unwrap()
    };
    for length in 0..200_u32 {
        let mut stream = greeted(&daemon);
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend((0..length).map(|_| random()));
        stream.write_all(&frame).unwrap();
        drop(stream.shutdown(std::net::Shutdown::Write)); // it may have been turned away
        ends(stream);
    }
    served(&daemon);
}

/// Whatever a client says of itself, the daemon looks for itself.
#[tokio::test]
async fn names_are_checked_whoever_sends_them() {
    let daemon = Simulated::start("");
    let vm = |change: fn(&mut CreateVm)| {
        let mut create = CreateVm { name: Some("web".to_owned()), ..CreateVm::default() };
        change(&mut create);
        Request::CreateVm(create)
    };
    let archive = || ImageSource::Directory { path: "/".to_owned() };
    let out = || "../../x".to_owned();
    let invalid = [
        vm(|create| create.name = Some("../web".to_owned())),
        vm(|create| create.name = Some("Web".to_owned())),
        vm(|create| create.name = Some("-web".to_owned())),
        vm(|create| create.name = Some("x".repeat(64))),
        vm(|create| create.name = Some(String::new())),
        vm(|create| create.image = Some("../../etc".to_owned())),
        vm(|create| create.kernel = Some("/boot/vmlinuz".to_owned())),
        vm(|create| create.vcpu = Some(0)),
        vm(|create| create.memory_mib = Some(0)),
        vm(|create| create.disk_bytes = Some(u64::MAX)),
        vm(|create| create.env = vec![("A=B".to_owned(), String::new())]),
        Request::ImportImage { name: out(), source: archive() },
        Request::ImportImage { name: "..".to_owned(), source: archive() },
        Request::DeleteImage { name: out() },
        Request::DeleteKernel { name: "a/b".to_owned() },
    ];
    for request in invalid {
        assert_eq!(refused(&daemon, request.clone()).await, "invalid", "{request:?}");
    }
    for request in [
        Request::ShowVm { vm: out() },
        Request::DeleteVm { vm: out() },
        Request::Endpoint { vm: String::new() },
        Request::ShowImage { name: out() },
    ] {
        assert_eq!(refused(&daemon, request.clone()).await, "not-found", "{request:?}");
    }
}

/// The code of the failure that the request is answered with.
async fn refused(daemon: &Simulated, request: Request) -> String {
    let stream = tokio::net::UnixStream::connect(daemon.socket()).await.unwrap();
    let mut frames = Frames::connect(stream, DAEMON, LIMIT).await.unwrap();
    frames.send(&Envelope { op_id: [7; 16], deadline_ms: 0, request }).await.unwrap();
    loop {
        match frames.receive::<Reply>().await.unwrap() {
            Some(Reply::Accepted { .. } | Reply::Event(_)) => {}
            Some(Reply::Failed(failure)) => return failure.code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_stops_in_the_middle_does_not_hold_others_up() {
    let daemon = Simulated::start("");
    let stuck: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = greeted(&daemon);
            stream.write_all(&[200, 0, 0, 0, 1]).unwrap();
            stream
        })
        .collect();
    served(&daemon);
    drop(stuck);
}

#[test]
fn one_connection_too_many_is_told_so_and_the_next_is_served() {
    let daemon = Simulated::start("");
    let crowd: Vec<_> = (0..256).map(|_| greeted(&daemon)).collect();
    let mut late = greeted(&daemon);
    let mut said = vec![];
    late.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("overloaded") && said.contains("as many connections"), "{said}");
    drop(crowd);
    let here = Surroundings::new();
    let until = std::time::Instant::now() + LIMIT;
    while here.banger(&daemon.socket(), "ps -q").said().code != 0 {
        assert!(std::time::Instant::now() < until, "nobody is served any more");
    }
}

#[test]
fn a_second_daemon_does_not_take_the_socket_away() {
    let daemon = Simulated::start("");
    let other = tempfile::tempdir().unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test plays the service manager")]
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_bangerd"))
        .arg("--sim")
        .arg("--state-dir")
        .arg(other.path().join("state"))
        .arg("--run-dir")
        .arg(other.path().join("run"))
        .arg("--socket")
        .arg(daemon.socket())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use"), "{said}");
    served(&daemon);
}

/// More connections than it may have files open: it refuses, lives, and serves who comes after.
#[test]
fn a_daemon_out_of_descriptors_lives_and_serves_again() {
    let daemon = Simulated::start_limited("", "48");
    let held: Vec<_> = (0..100).map(|_| UnixStream::connect(daemon.socket())).collect();
    let until = std::time::Instant::now() + LIMIT;
    while !daemon.log().contains("accept failed") {
        assert!(std::time::Instant::now() < until, "{}", daemon.log());
        std::thread::yield_now();
    }
    drop(held);
    let here = Surroundings::new();
    while here.banger(&daemon.socket(), "daemon status").said().code != 0 {
        assert!(std::time::Instant::now() < until, "nobody is served any more");
    }
    // It pauses between two attempts.
    assert!(daemon.log().matches("accept failed").count() < 1000);
}
