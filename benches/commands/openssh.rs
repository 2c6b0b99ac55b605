//! The peer of commands and copies: OpenSSH's clients against the same guest, with the cipher that is
//! ours too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger::wire::reply::EndpointInfo;

const CIPHER: &str = "aes128-gcm@openssh.com";

pub(crate) struct Openssh {
    dir: tempfile::TempDir,
    host: String,
    port: u16,
}

impl Openssh {
    pub(crate) fn new(endpoint: &EndpointInfo) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, &endpoint.client_private).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let EndpointInfo { address, port, host_key, .. } = endpoint;
        // OpenSSH writes the usual port without brackets.
        let place = if *port == 22 { address.clone() } else { format!("[{address}]:{port}") };
        std::fs::write(dir.path().join("known"), format!("{place} {host_key}\n")).unwrap();
        Self { dir, host: format!("root@{address}"), port: *port }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let known = format!("UserKnownHostsFile={}", file("known"));
        let port = format!("Port={}", self.port);
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
