//! Against OpenSSH's server, one process for each connection (`sshd -i`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, empty, sink};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::host::guest::make_keys;
use crate::model::{OpId, VmKeys};

const SSHD: &str = "/usr/sbin/sshd";
const LIMIT: Duration = Duration::from_secs(30);

struct Sshd {
    _dir: TempDir,
    keys: VmKeys,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `None` where OpenSSH's server is not installed.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn sshd() -> Option<Sshd> {
    if !Path::new(SSHD).exists() {
        eprintln!("skipped: openssh-server is not installed");
        return None;
    }
    if geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let dir = TempDir::new().unwrap();
    let keys = make_keys().unwrap();
    let place = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).unwrap();
        path
    };
    let host = place("host", &keys.host_private);
    let authorized = place("authorized", &keys.client_public);
    let config = place(
        "config",
        &format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
             PermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\nLogLevel ERROR\n",
            host.display(),
            authorized.display()
        ),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let stdin = OwnedFd::from(stream);
            let stdout = stdin.try_clone().unwrap();
            let mut child = Command::new(SSHD)
                .args(["-i", "-e", "-f"])
                .arg(&config)
                .stdin(Stdio::from(stdin))
                .stdout(Stdio::from(stdout))
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            tokio::spawn(async move { child.wait().await });
        }
    });
    Some(Sshd { _dir: dir, keys, address, server })
}

impl Sshd {
    fn endpoint(&self) -> SshEndpoint {
        SshEndpoint {
            target: SshTarget::Tcp(self.address),
            host_key: self.keys.host_public.clone(),
            client_private: self.keys.client_private.clone(),
            user: User::from_uid(geteuid()).unwrap().unwrap().name,
        }
    }

    async fn connect(&self) -> GuestSsh {
        GuestSsh::connect(&self.endpoint(), LIMIT).await.unwrap()
    }
}

fn line(line: &str) -> ExecSpec {
    let program = Program::Line(line.into());
    ExecSpec { program, env: vec![], op_id: OpId([1; 16]), tty: None, agent: false }
}

fn no_controls() -> mpsc::Receiver<Control> {
    mpsc::channel(1).1
}

/// Runs a line with this input; answers with how it ended and its two outputs.
async fn run(ssh: &GuestSsh, text: &str, stdin: &[u8]) -> (ExitKind, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let io = GuestIo { stdin, stdout: &mut stdout, stderr: &mut stderr };
    let ended = ssh.exec(line(text), io, no_controls()).await.unwrap();
    (ended, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn streams_and_exit_status_come_back() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let (ended, out, err) = run(&ssh, "cat; echo oops >&2; exit 7", b"to be told").await;
    assert_eq!((ended, out.as_str(), err.as_str()), (ExitKind::Code(7), "to be told", "oops\n"));
    // The same connection carries the next one, and several at once.
    let (a, b) = tokio::join!(run(&ssh, "echo a", b""), run(&ssh, "echo b", b""));
    assert_eq!((a.1.as_str(), b.1.as_str()), ("a\n", "b\n"));
    let (ended, ..) = run(&ssh, "kill -TERM $$", b"").await;
    assert_eq!(ended, ExitKind::Signal("TERM".into()));
}

#[tokio::test]
async fn input_that_is_never_read_does_not_hold_the_end_up() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let (mut stdout, endless) = (Vec::new(), tokio::io::repeat(b'x'));
    let io = GuestIo { stdin: endless, stdout: &mut stdout, stderr: sink() };
    let ended = ssh.exec(line("exit 3"), io, no_controls()).await.unwrap();
    assert_eq!(ended, ExitKind::Code(3));
}

/// Counts and checks what it is given, and takes its time now and then.
#[derive(Default)]
struct Checker {
    seen: u64,
    pauses: u32,
}

const fn pattern(position: u64) -> u8 {
    (position % 251).to_le_bytes()[0]
}

impl AsyncWrite for Checker {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pauses += 1;
        if self.pauses.is_multiple_of(7) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let taken = bytes.len().min(9_000);
        for byte in &bytes[..taken] {
            assert_eq!(*byte, pattern(self.seen));
            self.seen += 1;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The same bytes as [`Checker`] wants, `left` of them.
struct Source {
    at: u64,
    left: u64,
}

impl tokio::io::AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.left.min(buf.remaining() as u64).min(20_000);
        for _ in 0..n {
            buf.put_slice(&[pattern(self.at)]);
            self.at += 1;
        }
        self.left -= n;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn much_data_passes_both_ways_at_once() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let total = 16 << 20;
    let mut checker = Checker::default();
    let io = GuestIo { stdin: Source { at: 0, left: total }, stdout: &mut checker, stderr: sink() };
    let ended = ssh.exec(line("cat"), io, no_controls()).await.unwrap();
    assert_eq!((ended, checker.seen), (ExitKind::Code(0), total));
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_program() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let (here, mut reader) = tokio::io::duplex(4096);
    let io = GuestIo { stdin: empty(), stdout: here, stderr: sink() };
    let running = ssh.exec(line("echo $$; exec yes"), io, no_controls());
    let reading = async {
        let mut pid = String::new();
        while !pid.ends_with('\n') {
            pid.push(char::from(reader.read_u8().await.unwrap()));
        }
        drop(reader);
        pid
    };
    let (ended, pid) = tokio::join!(running, reading);
    assert!(matches!(ended, Err(GuestError::OutputClosed)), "{ended:?}");
    let process = Path::new("/proc").join(pid.trim());
    while process.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads until `wanted` has come, and answers all that came.
async fn until(reader: &mut DuplexStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        text.push(char::from(reader.read_u8().await.unwrap()));
    }
    text
}

#[tokio::test]
async fn a_terminal_has_its_size_and_gets_a_new_one() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let tty = Pty { term: "vt220".into(), cols: 91, rows: 17 };
    let (controls, receiver) = mpsc::channel(1);
    let (here, mut reader) = tokio::io::duplex(64 * 1024);
    let (mut typing, stdin) = tokio::io::duplex(4096);
    let io = GuestIo { stdin, stdout: here, stderr: sink() };
    // The trap comes first: whoever has read the second line knows that it is set.
    let script =
        "trap 'stty size' WINCH; stty size; echo $TERM; while read l; do echo \"<$l>\"; done";
    let spec = ExecSpec { tty: Some(tty), ..line(script) };
    let running = ssh.exec(spec, io, receiver);
    let using = async {
        until(&mut reader, "17 91\r\nvt220\r\n").await;
        controls.send(Control::Resize { cols: 120, rows: 40 }).await.unwrap();
        // The new size is told by the shell's trap, which runs between two lines.
        let mut text = String::new();
        while !text.contains("40 120") {
            typing.write_all(b"hello\n").await.unwrap();
            text.push_str(&until(&mut reader, "<hello>").await);
        }
        // Ctrl-C on the line ends the program in the guest.
        typing.write_all(b"\x03").await.unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
    };
    let (ended, ()) = tokio::join!(running, using);
    assert!(matches!(ended.unwrap(), ExitKind::Signal(_) | ExitKind::Code(130)));
}

#[tokio::test]
async fn a_shell_is_a_login_shell_and_takes_lines() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let mut stdout = Vec::new();
    let io = GuestIo { stdin: &b"echo $0; exit 4\n"[..], stdout: &mut stdout, stderr: sink() };
    let spec = ExecSpec { program: Program::Shell, ..line("") };
    let ended = ssh.exec(spec, io, no_controls()).await.unwrap();
    assert_eq!(ended, ExitKind::Code(4));
    assert!(String::from_utf8_lossy(&stdout).contains("-"), "a login shell's name has a hyphen");
}

#[tokio::test]
async fn another_host_key_is_refused_before_any_authentication() {
    let Some(sshd) = sshd().await else { return };
    let endpoint = SshEndpoint { host_key: make_keys().unwrap().host_public, ..sshd.endpoint() };
    let error = GuestSsh::connect(&endpoint, LIMIT).await.unwrap_err();
    assert!(matches!(error, GuestError::HostKeyMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn another_client_key_is_refused() {
    let Some(sshd) = sshd().await else { return };
    let client_private = make_keys().unwrap().client_private;
    let endpoint = SshEndpoint { client_private, ..sshd.endpoint() };
    let error = GuestSsh::connect(&endpoint, LIMIT).await.unwrap_err();
    assert!(matches!(error, GuestError::AuthRefused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_is_forwarded_and_a_closed_port_is_told() {
    let Some(sshd) = sshd().await else { return };
    let ssh = sshd.connect().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mut stream = ssh.direct_tcpip("127.0.0.1", port).await.unwrap();
    stream.write_all(b"there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "there and back");
    echo.await.unwrap();
    let refused = ssh.direct_tcpip("127.0.0.1", port).await.err();
    assert!(matches!(refused, Some(GuestError::ChannelRefused { .. })), "{refused:?}");
}
