//! Against a server in this process, which does what no well-behaved server does.

use std::sync::Arc;
use std::time::Duration;

use banger_agent::contract::exec as contract;
use russh::keys::PrivateKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Pty as Mode, Sig};
use tempfile::TempDir;
use tokio::io::{empty, sink};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::*;
use crate::host::guest::make_keys;
use crate::model::{OpId, VmKeys, chain};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs what the request's first word says.
#[derive(Clone)]
struct Odd;

impl server::Handler for Odd {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Mode, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Ok(Some(request)) = contract::decode(data) else {
            return session.channel_failure(channel);
        };
        if request.argv[0] == "refuse" {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)?;
        match request.argv[0].as_str() {
            // Tells the request as it arrived.
            "tell" => {
                session.data(channel, format!("{request:?}").into_bytes())?;
                session.exit_status_request(channel, 0)?;
            }
            "signal" => {
                let name = Sig::Custom("XCPU".into());
                session.exit_signal_request(channel, name, false, "", "")?;
            }
            "silent" => {}
            "vanish" => return Err(russh::Error::Disconnect),
            // Ends by the first signal.
            _ => return Ok(()),
        }
        session.eof(channel)?;
        session.close(channel)
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.exit_signal_request(channel, signal, false, "", "")?;
        session.close(channel)
    }
}

struct Server {
    dir: TempDir,
    keys: VmKeys,
}

/// Serves every connection to its socket until the test ends.
fn serve() -> Server {
    let server = Server { dir: TempDir::new().unwrap(), keys: make_keys().unwrap() };
    let config = server::Config {
        keys: vec![PrivateKey::from_openssh(&server.keys.host_private).unwrap()],
        ..server::Config::default()
    };
    let config = Arc::new(config);
    let listener = UnixListener::bind(server.dir.path().join("ssh")).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = server::run_stream(config, stream, Odd).await {
                    drop(session.await);
                }
            });
        }
    });
    server
}

impl Server {
    fn endpoint(&self) -> SshEndpoint {
        SshEndpoint {
            target: SshTarget::Unix(self.dir.path().join("ssh")),
            host_key: self.keys.host_public.clone(),
            client_private: self.keys.client_private.clone(),
            user: "root".into(),
        }
    }
}

async fn run(argv: &[&str], tty: Option<Pty>) -> (Result<ExitKind, GuestError>, String) {
    let server = serve();
    let ssh = GuestSsh::connect(&server.endpoint(), LIMIT).await.unwrap();
    let program = Program::Argv {
        argv: argv.iter().map(ToString::to_string).collect(),
        cwd: Some("/root/repo".into()),
    };
    let env = vec![("A".to_owned(), "b c".to_owned())];
    let spec = ExecSpec { program, env, op_id: OpId([7; 16]), tty, agent: false };
    let mut stdout = Vec::new();
    let io = GuestIo { stdin: empty(), stdout: &mut stdout, stderr: sink() };
    let ended = ssh.exec(spec, io, mpsc::channel(1).1).await;
    (ended, String::from_utf8(stdout).unwrap())
}

#[tokio::test]
async fn arguments_environment_directory_and_operation_arrive_as_they_are() {
    let (ended, told) = run(&["tell", "a b", "", "$x 'é'\n"], None).await;
    assert_eq!(ended.unwrap(), ExitKind::Code(0));
    let argv = ["tell", "a b", "", "$x 'é'\n"].map(String::from).to_vec();
    let env = vec![("A".to_owned(), "b c".to_owned())];
    let cwd = Some("/root/repo".to_owned());
    assert_eq!(told, format!("{:?}", contract::ExecRequest { argv, env, cwd, op_id: [7; 16] }));
}

#[tokio::test]
async fn a_signal_without_a_name_of_its_own_keeps_it() {
    let (ended, _) = run(&["signal"], None).await;
    assert_eq!(ended.unwrap(), ExitKind::Signal("XCPU".into()));
}

#[tokio::test]
async fn a_signal_reaches_the_program() {
    let server = serve();
    let ssh = GuestSsh::connect(&server.endpoint(), LIMIT).await.unwrap();
    for name in ["USR1", "INT", "WINCH"] {
        let program = Program::Argv { argv: vec!["wait".into()], cwd: None };
        let spec = ExecSpec { program, env: vec![], op_id: OpId([7; 16]), tty: None, agent: false };
        let (controls, receiver) = mpsc::channel(1);
        controls.send(Control::Signal(name.into())).await.unwrap();
        let io = GuestIo { stdin: empty(), stdout: sink(), stderr: sink() };
        let ended = ssh.exec(spec, io, receiver).await.unwrap();
        assert_eq!(ended, ExitKind::Signal(name.into()));
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (refused, _) = run(&["refuse"], None).await;
    assert!(matches!(refused, Err(GuestError::RequestRefused { what: "run the program" })));
    let (silent, _) = run(&["silent"], None).await;
    assert!(chain(&silent.unwrap_err()).contains("without its status"));
    let (lost, _) = run(&["vanish"], None).await;
    assert!(matches!(lost, Err(GuestError::Lost { .. })), "{lost:?}");
    let tty = Pty { term: "xterm".into(), cols: 80, rows: 24 };
    let (no_tty, _) = run(&["tell"], Some(tty)).await;
    assert!(matches!(no_tty, Err(GuestError::RequestRefused { what: "make a terminal" })));
    let (nothing, _) = run(&[], None).await;
    assert!(matches!(nothing, Err(GuestError::Request(_))), "{nothing:?}");
}

#[tokio::test]
async fn a_guest_that_is_not_there_is_unreachable() {
    let server = serve();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = SshEndpoint { target: SshTarget::Tcp(address), ..server.endpoint() };
    // Takes the connection and says nothing.
    let mute = GuestSsh::connect(&endpoint, Duration::from_millis(100)).await.unwrap_err();
    assert!(chain(&mute).ends_with("no answer within 100 ms"), "{mute:?}");
    drop(listener);
    let refused = GuestSsh::connect(&endpoint, LIMIT).await.unwrap_err();
    assert!(matches!(refused, GuestError::Unreachable { .. }), "{refused:?}");
}

#[tokio::test]
async fn an_endpoint_that_makes_no_sense_is_named() {
    let server = serve();
    let endpoint = SshEndpoint { host_key: "ssh-ed25519 nonsense".into(), ..server.endpoint() };
    let error = GuestSsh::connect(&endpoint, LIMIT).await.unwrap_err();
    assert!(chain(&error).contains("unusable host key"), "{error:?}");
    assert!(!format!("{endpoint:?}").contains("PRIVATE"), "the key must not reach a log");
}
