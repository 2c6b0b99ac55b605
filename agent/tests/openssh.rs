//! The SSH server, run on this machine as `banger-agent serve`, spoken to by OpenSSH's own clients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]
#![allow(clippy::disallowed_methods, reason = "the clients under test are programs")]
#![allow(clippy::print_stderr, reason = "skipped tests say so")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::{CLIENT_KEY, HOST_KEY, Server};

/// A server that OpenSSH's clients know; `here` and `there` are the two sides of transfers.
struct Host {
    server: Server,
}

/// `None`, and a line that says so, where OpenSSH's clients are not installed.
fn host(name: &str) -> Option<Host> {
    if Command::new("ssh").arg("-V").output().is_err() {
        eprintln!("skipped: openssh-client is not installed");
        return None;
    }
    let server = Server::start(name);
    let dir = &server.dir;
    fs::write(dir.join("key"), CLIENT_KEY).unwrap();
    fs::set_permissions(dir.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    let known = russh::keys::PrivateKey::from_openssh(HOST_KEY).unwrap();
    let known = known.public_key().to_openssh().unwrap();
    fs::write(dir.join("known"), format!("[127.0.0.1]:{} {known}\n", server.port)).unwrap();
    let config = format!(
        "Host guest\nHostName 127.0.0.1\nPort {}\nUser root\nIdentityFile {dir}/key\n\
         IdentitiesOnly yes\nUserKnownHostsFile {dir}/known\nGlobalKnownHostsFile /dev/null\n\
         StrictHostKeyChecking yes\nBatchMode yes\n",
        server.port,
        dir = dir.display(),
    );
    fs::write(dir.join("config"), config).unwrap();
    for side in ["here", "there"] {
        fs::create_dir(dir.join(side)).unwrap();
    }
    Some(Host { server })
}

impl Host {
    fn path(&self, name: &str) -> String {
        self.server.dir.join(name).display().to_string()
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.server.dir.join("config")).args(args);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let done = self.client(program, args).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{program} {args:?}: {told}");
        done
    }

    /// What sftp prints when these lines are typed into it.
    fn sftp(&self, lines: &str) -> (bool, String) {
        let mut command = self.client("sftp", &["-b", "-", "guest"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// Bytes that no compression and no line ending leaves alone.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn scp_carries_files_and_trees_both_ways_by_both_of_its_protocols() {
    let Some(host) = host("scp") else { return };
    let data = noise(3 << 20);
    let tree = host.server.dir.join("here/tree");
    fs::create_dir_all(tree.join("below/deep")).unwrap();
    fs::write(tree.join("data"), &data).unwrap();
    fs::write(tree.join("below/deep/empty"), b"").unwrap();
    let strange = OsStr::from_bytes(b"a b\nc\xff'\"$");
    fs::write(tree.join("below").join(strange), b"strange").unwrap();
    fs::set_permissions(tree.join("data"), fs::Permissions::from_mode(0o751)).unwrap();
    for (protocol, there) in [("-s", "sftp"), ("-O", "rcp")] {
        let there = host.path(&format!("there/{there}"));
        host.run("scp", &[protocol, "-rpq", &host.path("here/tree"), &format!("guest:{there}")]);
        let back = format!("{there}-back");
        host.run("scp", &[protocol, "-rpq", &format!("guest:{there}"), &back]);
        for place in [&there, &back] {
            let place = Path::new(place);
            assert!(fs::read(place.join("data")).unwrap() == data, "{}", place.display());
            assert_eq!(mode(place.join("data")), 0o751);
            // The older protocol has no way to say all names.
            if protocol == "-s" {
                assert_eq!(fs::read(place.join("below").join(strange)).unwrap(), b"strange");
            }
            assert!(fs::read(place.join("below/deep/empty")).unwrap().is_empty());
            let time = |path: &Path| fs::metadata(path).unwrap().mtime();
            assert_eq!(time(&place.join("data")), time(&tree.join("data")));
        }
    }
}

#[test]
fn sftp_does_all_that_its_commands_can() {
    let Some(host) = host("sftp") else { return };
    let there = host.path("there");
    fs::write(host.path("here/f"), b"hello").unwrap();
    let (done, text) = host.sftp(&format!(
        "cd {there}\npwd\nput {here} f\nchmod 640 f\nmkdir d\nrename f d/g\nln -s d/g soft\n\
         ln d/g hard\nls -l\nls -l d\ndf -h .\nget d/g {here}.back\nput -f {here} d/synced\n\
         mkdir e\nrmdir e\nrm d/synced\nput {here} x\nput {here} y\nrename x y\n",
        here = host.path("here/f"),
    ));
    assert!(done, "{text}");
    assert!(text.contains(&format!("Remote working directory: {there}")), "{text}");
    assert_eq!(fs::read(host.path("there/d/g")).unwrap(), b"hello");
    assert_eq!(mode(host.path("there/d/g")), 0o640);
    assert_eq!(fs::read_link(host.path("there/soft")).unwrap(), Path::new("d/g"));
    assert_eq!(fs::metadata(host.path("there/hard")).unwrap().nlink(), 2);
    assert_eq!(fs::read(host.path("here/f.back")).unwrap(), b"hello");
    assert!(text.contains("-rw-r-----    2 root     root              5"), "{text}");
    assert!(text.contains("lrwxrwxrwx"), "{text}");
    let gone = ["there/e", "there/d/synced", "there/x", "there/f"];
    assert!(gone.iter().all(|name| !Path::new(&host.path(name)).exists()), "{text}");
    assert_eq!(fs::read(host.path("there/y")).unwrap(), b"hello");
}

#[test]
fn sftp_resumes_and_refuses_what_cannot_be() {
    let Some(host) = host("sftp-edge") else { return };
    let data = noise(2 << 20);
    fs::write(host.path("here/f"), &data).unwrap();
    fs::write(host.path("there/f"), &data[..1 << 20]).unwrap();
    let (here, there) = (host.path("here/f"), host.path("there/f"));
    let (done, text) = host.sftp(&format!("reput {here} {there}\n"));
    assert!(done, "{text}");
    assert!(fs::read(&there).unwrap() == data);
    fs::write(host.path("here/g"), &data[..1000]).unwrap();
    let (done, text) = host.sftp(&format!("reget {there} {}\n", host.path("here/g")));
    assert!(done, "{text}");
    assert!(fs::read(host.path("here/g")).unwrap() == data);
    fs::create_dir(host.path("there/full")).unwrap();
    fs::write(host.path("there/full/x"), b"").unwrap();
    symlink("loop", host.path("there/loop")).unwrap();
    for (line, why) in [
        (format!("ls {}", host.path("there/none")), "not found"),
        (format!("get {}", host.path("there/none")), "not found"),
        (format!("rmdir {}", host.path("there/full")), "Failure"),
        (format!("mkdir {}", host.path("there/full")), "Failure"),
        (format!("get {}", host.path("there/loop")), "Failure"),
        (format!("put {here} {}/x/y", host.path("there/full")), "Failure"),
    ] {
        let (done, text) = host.sftp(&format!("{line}\n"));
        assert!(!done && text.to_lowercase().contains(&why.to_lowercase()), "{line}: {text}");
    }
    // A directory of more entries than one reply holds.
    fs::create_dir(host.path("there/many")).unwrap();
    for number in 0..300 {
        fs::write(host.path(&format!("there/many/{number:03}")), b"").unwrap();
    }
    let (done, text) = host.sftp(&format!("ls -1 {}\n", host.path("there/many")));
    assert!(done, "{text}");
    let listed =
        text.lines().filter(|line| line.contains("/many/") && !line.contains("ls")).count();
    assert_eq!(listed, 300, "{text}");
}

#[test]
fn rsync_and_git_are_at_home() {
    let Some(host) = host("rsync-git") else { return };
    let shell = format!("ssh -F {}", host.path("config"));
    if Command::new("rsync").arg("--version").output().is_ok() {
        fs::create_dir_all(host.path("here/tree/d")).unwrap();
        fs::write(host.path("here/tree/d/f"), noise(100_000)).unwrap();
        symlink("d/f", host.path("here/tree/l")).unwrap();
        let there = format!("guest:{}", host.path("there/tree"));
        for _ in 0..2 {
            let done = Command::new("rsync")
                .args(["-a", "--delete", "-e", &shell, &host.path("here/tree/"), &there])
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(fs::read(host.path("there/tree/d/f")).unwrap(), noise(100_000));
            assert_eq!(fs::read_link(host.path("there/tree/l")).unwrap(), Path::new("d/f"));
        }
    }
    if Command::new("git").arg("--version").output().is_ok() {
        let git = |args: &[&str]| {
            let done = Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=m"])
                .args(args)
                .env("GIT_SSH_COMMAND", &shell)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .unwrap();
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let (bare, work) = (host.path("there/r.git"), host.path("here/w"));
        git(&["init", "-q", "--bare", &bare]);
        git(&["clone", "-q", &format!("guest:{bare}"), &work]);
        fs::write(format!("{work}/f"), noise(10_000)).unwrap();
        git(&["-C", &work, "add", "."]);
        git(&["-C", &work, "commit", "-qm", "one"]);
        git(&["-C", &work, "push", "-q", "origin", "HEAD"]);
        let again = host.path("here/again");
        git(&["clone", "-q", &format!("guest:{bare}"), &again]);
        assert_eq!(fs::read(format!("{again}/f")).unwrap(), noise(10_000));
    }
}

#[test]
fn ports_are_forwarded_both_ways() {
    let Some(host) = host("forwards") else { return };
    let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = echo.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in echo.incoming() {
            let mut stream = stream.unwrap();
            let mut from = stream.try_clone().unwrap();
            drop(std::io::copy(&mut from, &mut stream));
            drop(stream.shutdown(std::net::Shutdown::Write));
        }
    });
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (local, remote) = (free(), free());
    let data = noise(1 << 20);
    let returned = |port: u16| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let mut to = stream.try_clone().unwrap();
        let sent = data.clone();
        let sender = std::thread::spawn(move || {
            to.write_all(&sent).unwrap();
            to.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = vec![];
        stream.read_to_end(&mut back).unwrap();
        sender.join().unwrap();
        assert!(back == data, "{} bytes came back", back.len());
    };
    let there = format!("localhost:{target}");
    let mut client = host
        .client(
            "ssh",
            &[
                "-o",
                "ExitOnForwardFailure=yes",
                "-L",
                &format!("{local}:{there}"),
                "-R",
                &format!("{remote}:{there}"),
                "guest",
                "echo up; exec cat",
            ],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    client.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    returned(local);
    // Through the server's port to the client and from there to the target.
    returned(remote);
    returned(remote);
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
    // With its client the port goes.
    while TcpStream::connect((Ipv4Addr::LOCALHOST, remote)).is_ok() {}
}

#[test]
fn the_clients_agent_is_there_on_request_and_goes_with_the_program() {
    let Some(host) = host("agent") else { return };
    let socket = host.path("agent.sock");
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !Path::new(&socket).exists() {}
    let list = |flags: &[&str]| {
        let line = "echo sock=$SSH_AUTH_SOCK; ssh-add -l";
        let args = [flags, &["guest", line]].concat();
        host.client("ssh", &args).env("SSH_AUTH_SOCK", &socket).output().unwrap()
    };
    let key = host.path("key");
    let added = Command::new("ssh-add").arg(&key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(added.status.success());
    let with = String::from_utf8(list(&["-A"]).stdout).unwrap();
    assert!(with.contains("ED25519"), "{with}");
    let offered = with.lines().find_map(|line| line.strip_prefix("sock=")).unwrap().to_owned();
    while Path::new(&offered).exists() {}
    let without = String::from_utf8(list(&["-a"]).stdout).unwrap();
    assert!(without.starts_with("sock=\n"), "{without}");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_gigabyte_passes_both_ways_without_growth() {
    let Some(host) = host("gigabyte") else { return };
    const LENGTH: u64 = 1 << 30;
    let script =
        format!("head -c {LENGTH} /dev/zero | ssh -F {} guest cat | wc -c", host.path("config"));
    let mut pipe = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let resident = || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", host.server.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut most = 0;
    while pipe.try_wait().unwrap().is_none() {
        most = most.max(resident());
    }
    let mut counted = String::new();
    pipe.stdout.take().unwrap().read_to_string(&mut counted).unwrap();
    assert_eq!(counted.trim(), LENGTH.to_string());
    assert!(most < 64 << 10, "{most} KiB");
}
