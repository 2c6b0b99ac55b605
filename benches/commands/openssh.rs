//! The peer of commands and copies: OpenSSH, its clients and its server, in the same guest, with the
//! cipher that is ours too.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger::wire::reply::EndpointInfo;

const CIPHER: &str = "aes128-gcm@openssh.com";
/// Beside the agent's own server.
const PORT: u16 = 2200;
const SERVE: &str = "mkdir -p /run/sshd /root/.ssh; cat > /root/.ssh/authorized_keys; \
    chmod -R go= /root/.ssh; /usr/sbin/sshd -p 2200; cat /etc/ssh/ssh_host_ed25519_key.pub";

pub(crate) struct Openssh {
    dir: tempfile::TempDir,
    host: String,
}

impl Openssh {
    /// Starts the server in a guest whose image has it.
    pub(crate) fn serve(vm: &str, endpoint: &EndpointInfo) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let mut keygen = Command::new("ssh-keygen");
        assert!(
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key)
                .status()
                .unwrap()
                .success()
        );
        let mut exec = Command::new(env!("CARGO_BIN_EXE_banger"))
            .args(["vm", "exec", "-i", vm, "--", "sh", "-ec", SERVE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let public = std::fs::read(key.with_extension("pub")).unwrap();
        exec.stdin.take().unwrap().write_all(&public).unwrap();
        let served = exec.wait_with_output().unwrap();
        assert!(served.status.success(), "sshd in {vm}: {}", served.status);
        let host_key = String::from_utf8(served.stdout).unwrap();
        let address = &endpoint.address;
        std::fs::write(dir.path().join("known"), format!("[{address}]:{PORT} {host_key}")).unwrap();
        Self { dir, host: format!("root@{address}") }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let known = format!("UserKnownHostsFile={}", file("known"));
        let port = format!("Port={PORT}");
        command.args(["-F", "none", "-i", &file("key"), "-o", &known, "-o", &port, "-c", CIPHER]);
        for option in ["BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"] {
            command.args(["-o", option]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// `ssh` with its options as words of a shell, without the target.
    pub(crate) fn line(&self) -> String {
        let client = self.client("ssh");
        let words = std::iter::once(client.get_program()).chain(client.get_args());
        words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A whole process with a connection of its own.
    pub(crate) fn fresh(&self) -> Duration {
        timed(self.client("ssh").args([&self.host, "true"]))
    }

    /// Over a connection that is there already, for as long as the answer lives.
    pub(crate) fn master(&self) -> Master<'_> {
        let master = Master(self);
        let mut ssh = self.client("ssh");
        ssh.args(["-M", "-N", "-f", "-S"]).arg(master.path()).arg(&self.host).stderr(Stdio::null());
        assert!(ssh.status().unwrap().success());
        master
    }

    pub(crate) fn copy_to(&self, file: &Path, place: &str) -> Duration {
        let to = format!("{}:{place}", self.host);
        timed(self.client("scp").arg("-q").arg(file).arg(to))
    }

    pub(crate) fn copy_from(&self, place: &str, file: &Path) -> Duration {
        let from = format!("{}:{place}", self.host);
        timed(self.client("scp").arg("-q").arg(from).arg(file))
    }
}

pub(crate) struct Master<'a>(&'a Openssh);

impl Master<'_> {
    fn path(&self) -> PathBuf {
        self.0.dir.path().join("master")
    }

    pub(crate) fn exec(&self) -> Duration {
        timed(self.0.client("ssh").arg("-S").arg(self.path()).args([&self.0.host, "true"]))
    }
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        let mut ssh = self.0.client("ssh");
        ssh.args(["-O", "exit", "-S"]).arg(self.path()).arg(&self.0.host).stderr(Stdio::null());
        drop(ssh.status());
    }
}

pub(crate) fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let ended = command.status().unwrap();
    assert!(ended.success(), "{command:?}: {ended}");
    began.elapsed()
}
