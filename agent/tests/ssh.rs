//! The SSH server, run on this machine as `banger-agent serve`, spoken to by a real client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use banger_agent::contract::exec::{self, ExecRequest};
use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg, Sig};

use support::{CLIENT_KEY, HOST_KEY, Server};

const LIMIT: Duration = Duration::from_secs(60);

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let known = PrivateKey::from_openssh(HOST_KEY).unwrap();
        Ok(matches!(key, russh::keys::PublicKeyOrCertificate::PublicKey { key, .. }
            if key.key_data() == known.public_key().key_data()))
    }
}

async fn connect(server: &Server) -> Handle<Trusting> {
    let mut session = client::connect(Arc::default(), (Ipv4Addr::LOCALHOST, server.port), Trusting)
        .await
        .unwrap();
    let key = Arc::new(PrivateKey::from_openssh(CLIENT_KEY).unwrap());
    let login = session.authenticate_publickey("root", PrivateKeyWithHashAlg::new(key, None)).await;
    assert!(login.unwrap().success());
    session
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    out: String,
    err: String,
    status: Option<u32>,
    signal: Option<String>,
}

async fn collect(channel: &mut Channel<client::Msg>) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => outcome.out.push_str(&String::from_utf8_lossy(&data)),
            ChannelMsg::ExtendedData { data, .. } => {
                outcome.err.push_str(&String::from_utf8_lossy(&data))
            }
            ChannelMsg::ExitStatus { exit_status } => outcome.status = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                outcome.signal = Some(format!("{signal_name:?}"))
            }
            // The channel stays open for another request.
            ChannelMsg::Failure => {
                outcome.err.push_str("refused");
                return outcome;
            }
            _ => {}
        }
    }
    outcome
}

async fn run(session: &Handle<Trusting>, command: impl Into<Vec<u8>>) -> Outcome {
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    channel.eof().await.unwrap();
    collect(&mut channel).await
}

fn argv(words: &[&str]) -> ExecRequest {
    let argv = words.iter().map(|&word| word.to_owned()).collect();
    ExecRequest { argv, env: Vec::new(), cwd: None, op_id: [3; 16] }
}

fn test<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Arc<Server>) -> F) {
    let server = Arc::new(Server::start(name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, body(server)).await }).expect("in time");
}

#[test]
fn argv_is_not_split_and_its_environment_is_its_own() {
    test("argv", async |server| {
        let session = connect(&server).await;
        let mut request = argv(&["printf", "%s|", "a b", "", "$HOME", "é'\""]);
        let done = run(&session, exec::encode(&request).unwrap()).await;
        assert_eq!((done.out.as_str(), done.status), ("a b||$HOME|é'\"|", Some(0)));
        request = argv(&["sh", "-c", "echo $FROM_CONFIG $MINE $USER; pwd; exit 7"]);
        request.env = vec![("MINE".into(), "mine too".into())];
        request.cwd = Some("/usr".into());
        let done = run(&session, exec::encode(&request).unwrap()).await;
        assert_eq!((done.out.as_str(), done.status), ("config mine too root\n/usr\n", Some(7)));
    });
}

#[test]
fn failures_to_start_are_126_and_127() {
    test("failures", async |server| {
        let session = connect(&server).await;
        let cases = [
            ("/nowhere/at/all", 127),
            ("no-such-program", 127),
            ("/etc/passwd", 126),
            ("/etc", 126),
        ];
        for (program, status) in cases {
            let done = run(&session, exec::encode(&argv(&[program])).unwrap()).await;
            assert_eq!(done.status, Some(status), "{program}: {done:?}");
            assert!(done.err.contains(program), "{done:?}");
        }
        let mut request = argv(&["true"]);
        request.cwd = Some("/nowhere".into());
        let done = run(&session, exec::encode(&request).unwrap()).await;
        assert_eq!(done.status, Some(126), "{done:?}");
        let done = run(&session, b"\0banger\0\x63damaged".to_vec()).await;
        assert_eq!((done.err.as_str(), done.status), ("refused", None));
    });
}

#[test]
fn a_plain_line_goes_to_the_shell_and_signals_are_told() {
    test("line", async |server| {
        let session = connect(&server).await;
        let done = run(&session, "echo out; echo err >&2; exit 3").await;
        assert_eq!(
            (done.out.as_str(), done.err.as_str(), done.status),
            ("out\n", "err\n", Some(3))
        );
        let done = run(&session, "kill -KILL $$").await;
        assert_eq!((done.signal.as_deref(), done.status), (Some("KILL"), None));
        let mut channel = session.channel_open_session().await.unwrap();
        channel.exec(true, "echo up; exec sleep 1000").await.unwrap();
        while !matches!(channel.wait().await, Some(ChannelMsg::Data { .. })) {}
        channel.signal(Sig::TERM).await.unwrap();
        assert_eq!(collect(&mut channel).await.signal.as_deref(), Some("TERM"));
    });
}

#[test]
fn a_filter_neither_deadlocks_nor_loses_data() {
    test("filter", async |server| {
        const BLOCK: usize = 64 * 1024;
        const BLOCKS: usize = 512;
        let session = connect(&server).await;
        let channel = session.channel_open_session().await.unwrap();
        channel.exec(true, exec::encode(&argv(&["cat"])).unwrap()).await.unwrap();
        let (mut read, write) = channel.split();
        let send = async {
            for number in 0..BLOCKS {
                let byte = u8::try_from(number % 251).unwrap();
                write.data_bytes(vec![byte; BLOCK]).await.unwrap();
            }
            write.eof().await.unwrap();
        };
        let receive = async {
            let (mut length, mut status) = (0, None);
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => {
                        for byte in &data[..] {
                            assert_eq!(usize::from(*byte), (length / BLOCK) % 251);
                            length += 1;
                        }
                    }
                    ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                    _ => {}
                }
            }
            (length, status)
        };
        let ((), received) = tokio::join!(send, receive);
        assert_eq!(received, (BLOCK * BLOCKS, Some(0)));
    });
}

#[test]
fn unread_input_is_bounded_and_holds_nobody_up() {
    test("unread", async |server| {
        let session = connect(&server).await;
        let stuck = session.channel_open_session().await.unwrap();
        stuck.exec(true, "exec sleep 1000").await.unwrap();
        let flood = async {
            loop {
                stuck.data_bytes(vec![0_u8; 64 * 1024]).await.unwrap();
            }
        };
        let others = async {
            for _ in 0..20 {
                assert_eq!(run(&session, "echo alive").await.out, "alive\n");
            }
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        tokio::select! {
            () = flood => unreachable!("a command that reads nothing takes everything"),
            kilobytes = others => assert!(kilobytes < 64 * 1024, "{kilobytes} KiB"),
        }
    });
}

#[test]
fn a_command_is_hung_up_when_its_client_leaves() {
    test("hangup", async |server| {
        let marker = server.dir.join("hung-up");
        let session = connect(&server).await;
        let mut channel = session.channel_open_session().await.unwrap();
        let line = format!(
            "trap 'echo bye; echo x > {}; exit' HUP; echo up; while :; do sleep 0.05; done",
            marker.display()
        );
        channel.exec(true, line).await.unwrap();
        while !matches!(channel.wait().await, Some(ChannelMsg::Data { .. })) {}
        drop(channel);
        drop(session);
        while !marker.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_terminal_has_its_size_and_ends_with_its_shell() {
    test("terminal", async |server| {
        let session = connect(&server).await;
        let mut channel = session.channel_open_session().await.unwrap();
        channel.request_pty(true, "xterm", 132, 43, 0, 0, &[]).await.unwrap();
        // What stays in the background must not keep the session open.
        let line = "stty size; echo $TERM; test -t 0 && echo tty; sleep 30 & exit 4";
        channel.exec(true, line).await.unwrap();
        let done = collect(&mut channel).await;
        assert_eq!((done.out.as_str(), done.status), ("43 132\r\nxterm\r\ntty\r\n", Some(4)));
    });
}

#[test]
fn a_stranger_stays_outside() {
    test("stranger", async |server| {
        let mut session =
            client::connect(Arc::default(), (Ipv4Addr::LOCALHOST, server.port), Trusting)
                .await
                .unwrap();
        let key = || {
            PrivateKeyWithHashAlg::new(Arc::new(PrivateKey::from_openssh(HOST_KEY).unwrap()), None)
        };
        assert!(!session.authenticate_publickey("root", key()).await.unwrap().success());
        assert!(!session.authenticate_password("root", "").await.unwrap().success());
        let known = PrivateKeyWithHashAlg::new(
            Arc::new(PrivateKey::from_openssh(CLIENT_KEY).unwrap()),
            None,
        );
        assert!(!session.authenticate_publickey("no-such-user", known).await.unwrap().success());
        assert!(session.channel_open_session().await.is_err());
    });
}

#[test]
fn a_forward_carries_both_ways() {
    test("forward", async |server| {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        let echo = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        };
        let session = connect(&server).await;
        let talk = async {
            let mut channel =
                session.channel_open_direct_tcpip("localhost", port, "127.0.0.1", 0).await.unwrap();
            channel.data_bytes("hello").await.unwrap();
            channel.eof().await.unwrap();
            collect(&mut channel).await.out
        };
        assert_eq!(tokio::join!(echo, talk).1, "hello");
        assert!(session.channel_open_direct_tcpip("127.0.0.1", 1, "127.0.0.1", 0).await.is_err());
    });
}
