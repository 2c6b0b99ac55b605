//! What the daemon tells a service manager, which the test plays.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long nothing may be heard.
const LIMIT: Duration = Duration::from_secs(30);

struct Managed {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
    child: Child,
}

impl Managed {
    fn start(watchdog: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let socket = UnixDatagram::bind(at("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        std::fs::write(at("config.toml"), "[network]\ndns_listen = \"off\"\n").unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test plays the service manager")]
        let child = Command::new(env!("CARGO_BIN_EXE_bangerd"))
            .args(["--sim", "--config"])
            .arg(at("config.toml"))
            .arg("--state-dir")
            .arg(at("state"))
            .arg("--run-dir")
            .arg(at("run"))
            .env("NOTIFY_SOCKET", at("notify"))
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .env_remove("BANGER_CONFIG")
            .env_remove("BANGER_SOCKET")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, socket, child }
    }

    fn heard(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn it_is_ready_when_it_answers_lives_and_says_that_it_stops() {
    let mut daemon = Managed::start(Duration::from_millis(300));
    let ready = daemon.heard();
    assert_eq!(ready, "READY=1\nSTATUS=0 VMs, 0 running\n");
    std::os::unix::net::UnixStream::connect(daemon.dir.path().join("run/bangerd.sock")).unwrap();
    for _ in 0..3 {
        assert_eq!(daemon.heard(), "WATCHDOG=1\nSTATUS=0 VMs, 0 running\n");
    }
    let pid = i32::try_from(daemon.child.id()).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    while daemon.heard() != "STOPPING=1\n" {}
    assert!(daemon.child.wait().unwrap().success());
}
