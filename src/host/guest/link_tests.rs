//! Against the other end of the contract on a Unix socket, as a VMM offers it.

use std::future::Future;

use banger_agent::contract::CONTRACT_VERSION;
use banger_agent::contract::control::{FrameReader, HostRequest, encode_frame};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::model::{VmId, chain};

static LINK: std::sync::LazyLock<AgentLink> = std::sync::LazyLock::new(AgentLink::default);

const OP: OpId = OpId([7; 16]);

/// A run directory, and the VM's paths in it.
fn place() -> (TempDir, VmPaths) {
    let dir = TempDir::new().unwrap();
    let paths = VmPaths::new(dir.path(), dir.path(), VmId([1; 16]));
    std::fs::create_dir_all(paths.sockets()).unwrap();
    (dir, paths)
}

/// One connection, seen from the guest.
struct Guest {
    stream: UnixStream,
    frames: FrameReader,
}

impl Guest {
    async fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self { stream, frames: FrameReader::default() }
    }

    async fn request(&mut self) -> HostRequest {
        loop {
            if let Some(request) = self.frames.next_message().unwrap() {
                return request;
            }
            let mut bytes = [0; 512];
            let n = self.stream.read(&mut bytes).await.unwrap();
            assert_ne!(n, 0, "the host left");
            self.frames.push(&bytes[..n]);
        }
    }

    async fn say(&mut self, event: GuestEvent) {
        self.stream.write_all(&encode_frame(&event).unwrap()).await.unwrap();
    }
}

fn info() -> ReadyInfo {
    ReadyInfo {
        contract: CONTRACT_VERSION,
        agent_version: "0.1.0".into(),
        boot_id: "b-1".into(),
        kernel_release: "6.1".into(),
        os_name: "Debian".into(),
        ssh_port: 22,
        vsock: None,
        boot_millis: 900,
    }
}

/// Runs the daemon's side against a guest written in the test.
async fn both<T>(
    host: impl Future<Output = Result<T, HostError>>,
    guest: impl Future<Output = ()>,
) -> Result<T, HostError> {
    tokio::join!(host, guest).0
}

#[tokio::test]
async fn readiness_is_heard_however_late_the_port_comes() {
    let (_dir, paths) = place();
    let cancel = CancellationToken::new();
    let guest = async {
        // A VMM that died left its socket: refused at first.
        drop(UnixListener::bind(paths.control_socket()).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::remove_file(paths.control_socket()).unwrap();
        let listener = UnixListener::bind(paths.control_socket()).unwrap();
        // The first connection is cut.
        drop(Guest::accept(&listener).await);
        let mut guest = Guest::accept(&listener).await;
        let hello = guest.request().await;
        assert_eq!(
            hello,
            HostRequest { op_id: OP.0, body: HostBody::Hello { contract: CONTRACT_VERSION } }
        );
        guest.say(GuestEvent::Pong { op_id: [0; 16] }).await;
        guest.say(GuestEvent::NotReady { stage: "mount root".into(), error: None }).await;
        guest.say(GuestEvent::Ready(info())).await;
    };
    let ready = both(LINK.await_ready(OP, &paths, &cancel), guest).await.unwrap();
    assert_eq!(ready.boot_id, "b-1");
    assert_eq!(ready.os_name, "Debian");
}

#[tokio::test]
async fn a_failed_boot_tells_the_agents_words() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        guest.request().await;
        let error = Some("no disk with that id".into());
        guest.say(GuestEvent::NotReady { stage: "mount root".into(), error }).await;
    };
    let cancel = CancellationToken::new();
    let error = both(LINK.await_ready(OP, &paths, &cancel), guest).await.unwrap_err();
    assert_eq!(error.code, Code::GuestDied);
    assert!(chain(&error).ends_with("boot failed at mount root: no disk with that id"));
}

#[tokio::test]
async fn a_cut_stream_is_asked_again() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        guest.request().await;
        // Half a frame of an older conversation swallows the answer to this one.
        guest.stream.write_all(&[200, 0, 0, 0, 1]).await.unwrap();
        guest.say(GuestEvent::Pong { op_id: OP.0 }).await;
        assert_eq!(guest.request().await.body, HostBody::Ping);
        // And nonsense does not end it either.
        guest.stream.write_all(&[0xff; 64]).await.unwrap();
        assert_eq!(guest.request().await.body, HostBody::Ping);
        guest.say(GuestEvent::Pong { op_id: OP.0 }).await;
    };
    both(LINK.ping(OP, &paths, Duration::from_secs(30)), guest).await.unwrap();
}

#[tokio::test]
async fn a_resumed_guest_is_told_the_time_and_given_randomness_of_its_own() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let limit = Duration::from_secs(30);
    let guest = async {
        let mut drawn = vec![];
        for _ in 0..2 {
            let mut guest = Guest::accept(&listener).await;
            let HostBody::Resumed { unix_nanos, entropy } = guest.request().await.body else {
                panic!("it was to be told that it goes on")
            };
            assert_eq!(unix_nanos, 1_700_000_000_123_000_000);
            drawn.push(entropy);
            guest.say(GuestEvent::Resumed { op_id: [0; 16], boot_id: "another's".into() }).await;
            guest.say(GuestEvent::Resumed { op_id: OP.0, boot_id: "b-1".into() }).await;
        }
        assert_ne!(drawn[0], drawn[1]);
    };
    let resumed = async {
        for _ in 0..2 {
            let told = LINK.resumed(OP, &paths, 1_700_000_000_123, limit);
            assert_eq!(told.await?, "b-1");
        }
        Ok(())
    };
    both(resumed, guest).await.unwrap();
}

#[tokio::test]
async fn what_an_agent_cannot_do_about_a_resume_is_told() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        guest.request().await;
        let message = "add entropy: no".to_owned();
        guest.say(GuestEvent::Failed { op_id: OP.0, message }).await;
    };
    let resumed = LINK.resumed(OP, &paths, 1, Duration::from_secs(30));
    let error = both(resumed, guest).await.unwrap_err();
    assert!(chain(&error).ends_with("add entropy: no"), "{error:?}");
}

#[tokio::test]
async fn a_clock_is_set_and_a_sync_waited_for() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        assert_eq!(guest.request().await.body, HostBody::SetClock { unix_nanos: 7_000_000 });
        // Not answered; the question after it is.
        assert_eq!(guest.request().await.body, HostBody::Ping);
        guest.say(GuestEvent::Pong { op_id: OP.0 }).await;
        let mut guest = Guest::accept(&listener).await;
        assert_eq!(guest.request().await.body, HostBody::Sync);
        guest.say(GuestEvent::Synced { op_id: OP.0 }).await;
    };
    let host = async {
        LINK.set_clock(OP, &paths, 7).await?;
        LINK.sync(OP, &paths, Duration::from_secs(30)).await
    };
    both(host, guest).await.unwrap();
}

#[tokio::test]
async fn shutdown_asks_for_a_reboot_and_takes_no_answer_for_anothers() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        let mode = ShutdownMode::Reboot;
        let asked = HostBody::Shutdown { mode, grace_ms: 20_000 };
        assert_eq!(guest.request().await, HostRequest { op_id: OP.0, body: asked });
        guest.say(GuestEvent::Failed { op_id: [0; 16], message: "not yours".into() }).await;
        guest.say(GuestEvent::ShuttingDown { op_id: OP.0 }).await;
    };
    let grace = Duration::from_secs(20);
    both(LINK.shutdown(OP, &paths, grace), guest).await.unwrap();
}

#[tokio::test]
async fn a_vmm_that_ends_before_the_answer_is_a_shutdown() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        guest.request().await;
    };
    both(LINK.shutdown(OP, &paths, Duration::ZERO), guest).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_refuses_is_heard() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        guest.request().await;
        guest.say(GuestEvent::Failed { op_id: OP.0, message: "already going".into() }).await;
    };
    let error = both(LINK.shutdown(OP, &paths, Duration::ZERO), guest).await.unwrap_err();
    assert_eq!(error.code, Code::GuestUnreachable);
    assert!(chain(&error).ends_with("already going"), "{error:?}");
}

#[tokio::test]
async fn silence_and_absence_are_told_apart_from_an_answer() {
    let (_dir, paths) = place();
    let absent = LINK.ping(OP, &paths, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(absent.code, Code::GuestUnreachable);
    assert!(chain(&absent).contains("connect to the agent's port"), "{absent:?}");
    let _listener = UnixListener::bind(paths.control_socket()).unwrap();
    let silent = LINK.ping(OP, &paths, Duration::from_millis(50)).await.unwrap_err();
    assert!(chain(&silent).ends_with("the agent does not answer"), "{silent:?}");
}

#[tokio::test]
async fn cancelling_ends_the_wait() {
    let (_dir, paths) = place();
    let cancel = CancellationToken::new();
    let stop = async { cancel.cancel() };
    let error = both(LINK.await_ready(OP, &paths, &cancel), stop).await.unwrap_err();
    assert_eq!(error.code, Code::Cancelled);
}

/// Firecracker's socket, on which a guest is reached; there before the guest runs.
fn vsock(paths: &VmPaths) -> UnixListener {
    UnixListener::bind(paths.vsock_socket()).unwrap()
}

fn listener(paths: &VmPaths) -> std::path::PathBuf {
    paths.vsock_listener(banger_agent::contract::control::VSOCK_PORT)
}

/// Somebody who asks for the agent's port, and is let through if `there`.
async fn let_in(listener: &UnixListener, there: bool) -> Guest {
    let mut guest = Guest::accept(listener).await;
    let mut asked = [0; 13];
    guest.stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"CONNECT 1024\n");
    if there {
        guest.stream.write_all(b"OK 1073741824\n").await.unwrap();
    }
    guest
}

#[tokio::test]
async fn over_vsock_the_agent_comes_by_itself_however_often_it_fails() {
    let (_dir, paths) = place();
    let _vmm = vsock(&paths);
    // A daemon that died left its listener.
    drop(UnixListener::bind(listener(&paths)).unwrap());
    let dial = async || loop {
        match UnixStream::connect(listener(&paths)).await {
            Ok(stream) => return Guest { stream, frames: FrameReader::default() },
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let guest = async {
        drop(dial().await);
        let mut guest = dial().await;
        guest.say(GuestEvent::NotReady { stage: "mount root".into(), error: None }).await;
        guest.say(GuestEvent::Ready(info())).await;
        // Once it was heard, the host leaves.
        assert_eq!(guest.stream.read(&mut [0]).await.unwrap(), 0);
    };
    let cancel = CancellationToken::new();
    let ready = both(LINK.await_ready(OP, &paths, &cancel), guest).await.unwrap();
    assert_eq!(ready.boot_id, "b-1");
    assert!(!listener(&paths).exists(), "nobody listens there any more");

    let guest = async {
        let error = Some("no such disk".into());
        dial().await.say(GuestEvent::NotReady { stage: "root".into(), error }).await;
    };
    let error = both(LINK.await_ready(OP, &paths, &cancel), guest).await.unwrap_err();
    assert_eq!(error.code, Code::GuestDied);
    assert!(chain(&error).ends_with("boot failed at root: no such disk"), "{error:?}");
}

#[tokio::test]
async fn over_vsock_a_question_is_a_connection_to_the_guest() {
    let (_dir, paths) = place();
    let vmm = vsock(&paths);
    let guest = async {
        let mut guest = let_in(&vmm, true).await;
        assert_eq!(guest.request().await.body, HostBody::Ping);
        guest.say(GuestEvent::Pong { op_id: OP.0 }).await;
        let mut guest = let_in(&vmm, true).await;
        assert!(matches!(guest.request().await.body, HostBody::Shutdown { .. }));
        guest.say(GuestEvent::ShuttingDown { op_id: OP.0 }).await;
    };
    let host = async {
        LINK.ping(OP, &paths, Duration::from_secs(30)).await?;
        LINK.shutdown(OP, &paths, Duration::ZERO).await
    };
    both(host, guest).await.unwrap();
}

#[tokio::test]
async fn over_vsock_a_guest_without_an_agent_is_unreachable() {
    let (_dir, paths) = place();
    let vmm = vsock(&paths);
    let guest = async { drop(let_in(&vmm, false).await) };
    let error = both(LINK.shutdown(OP, &paths, Duration::ZERO), guest).await.unwrap_err();
    assert_eq!(error.code, Code::GuestUnreachable);
    assert!(chain(&error).ends_with("nobody listens in the guest"), "{error:?}");
    let guest = async {
        let mut guest = let_in(&vmm, false).await;
        guest.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
    };
    let error = both(LINK.shutdown(OP, &paths, Duration::ZERO), guest).await.unwrap_err();
    assert!(chain(&error).contains("not OK but \"HTTP"), "{error:?}");
}

#[tokio::test]
async fn a_blank_guest_is_told_who_it_is_and_what_only_it_knows() {
    let setup = crate::host::guest::setup::tests::setup(vec![("A".into(), "b c".into())]);
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let mut entropies = vec![];
    for refuses in [false, true] {
        let guest = async {
            // The first connection is cut, as one of before its memory was saved.
            Guest::accept(&listener).await.request().await;
            let mut guest = Guest::accept(&listener).await;
            let HostBody::AdoptFor { adoption, .. } = guest.request().await.body else { panic!() };
            assert_eq!(adoption.config.hostname, "web");
            assert_eq!(adoption.config.host_key, setup.record.keys.host_private);
            assert_eq!(adoption.fresh.unix_nanos, 7_000_000);
            entropies.push(adoption.fresh.entropy);
            // Of somebody else, and of before.
            guest.say(GuestEvent::Adopted { op_id: [9; 16], ready: info() }).await;
            guest.say(GuestEvent::Ready(info())).await;
            let ready = ReadyInfo { boot_id: "b-2".into(), ..info() };
            let answer = match refuses {
                true => GuestEvent::Failed { op_id: OP.0, message: "no".into() },
                false => GuestEvent::Adopted { op_id: OP.0, ready },
            };
            guest.say(answer).await;
        };
        let adopted = both(LINK.adopt(OP, &paths, &setup, 7), guest).await;
        match adopted {
            Ok(ready) => assert_eq!((ready.boot_id.as_str(), refuses), ("b-2", false)),
            Err(error) => {
                assert!(refuses && chain(&error).contains("no"), "{error:?}");
                assert_eq!(error.code, Code::GuestUnreachable);
            }
        }
    }
    assert_ne!(entropies[0], entropies[1]);
}

#[tokio::test]
async fn a_check_is_asked_after_over_short_connections_until_it_has_ended() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        assert!(matches!(guest.request().await.body, HostBody::Hello { .. }));
        guest.say(GuestEvent::Ready(info())).await;
        let first = guest.request().await;
        let question = HostBody::Check { command: "true".into(), limit_ms: 5000 };
        assert_eq!(first, HostRequest { op_id: OP.0, body: question });
        guest.say(GuestEvent::CheckRuns { op_id: OP.0 }).await;
        // The port is free for others meanwhile.
        let mut guest = Guest::accept(&listener).await;
        assert_eq!(guest.request().await, first, "the same check");
        guest.say(GuestEvent::CheckRuns { op_id: OP.0 }).await;
        let mut guest = Guest::accept(&listener).await;
        assert_eq!(guest.request().await, first);
        let other = GuestEvent::CheckRuns { op_id: [1; 16] };
        guest.say(other).await;
        let (end, output) = (CheckEnd::Exited(1), b"refused\n".to_vec());
        guest.say(GuestEvent::Checked { op_id: OP.0, end, output }).await;
    };
    let check = LINK.check(OP, &paths, "true", Duration::from_secs(5));
    let check = both(check, guest).await.unwrap();
    let expected = GuestCheck {
        healthy: false,
        how: "exit status 1".to_owned(),
        output: "refused\n".to_owned(),
    };
    assert_eq!(check, expected);
}

#[tokio::test]
async fn an_agent_of_before_is_not_asked_what_it_does_not_know() {
    let (_dir, paths) = place();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    let guest = async {
        let mut guest = Guest::accept(&listener).await;
        guest.request().await;
        guest.say(GuestEvent::Ready(ReadyInfo { contract: 2, ..info() })).await;
    };
    let check = LINK.check(OP, &paths, "true", Duration::from_secs(5));
    let error = both(check, guest).await.unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.hints.iter().any(|hint| hint.contains("restart")));
}
