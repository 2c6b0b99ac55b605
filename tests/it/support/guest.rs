//! The guest agent as an ordinary process on this machine, so that the CLI's SSH meets the real
//! server without a VM.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::SystemTime;

use banger::host::guest::make_keys;
use banger::model::VmKeys;
use banger::wire::reply::EndpointInfo;
use banger_agent::contract::config::{Control, GuestConfig, RootLayout};
use banger_agent::contract::drive;

pub(crate) struct AgentGuest {
    child: Child,
    port: u16,
    keys: VmKeys,
    _dir: tempfile::TempDir,
    /// Of its own, if it is not the one that was built.
    _program: Option<tempfile::TempDir>,
}

impl AgentGuest {
    /// `None`, said aloud, where this user may not become the guest's root.
    pub(crate) fn start(env: &[(&str, &str)]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        Some(Self::start_program(&agent_program(), env))
    }

    fn start_program(program: &Path, env: &[(&str, &str)]) -> Self {
        let mut tries = (0..5).filter_map(|_| Self::try_start(program, env));
        tries.next().expect("the agent starts")
    }

    /// One of before the contract had this word: in its place it has another of that length.
    pub(crate) fn older_than(word: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mut bytes = std::fs::read(agent_program()).unwrap();
        let windows = bytes.windows(word.len()).enumerate();
        let places = windows.filter(|(_, one)| *one == word.as_bytes()).map(|(at, _)| at);
        let places: Vec<_> = places.collect();
        assert!(!places.is_empty(), "the agent does not know {word} at all");
        for at in places {
            bytes[at] = b'?';
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("banger-agent");
        std::fs::write(&program, bytes).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut guest = Self::start_program(&program, &[]);
        guest._program = Some(dir);
        Some(guest)
    }

    fn try_start(program: &Path, env: &[(&str, &str)]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let keys = make_keys().unwrap();
        // Free now, and with some luck still when the agent binds it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let config = GuestConfig {
            vm_id: [1; 16],
            hostname: "web".to_owned(),
            net: None,
            authorized_keys: vec![keys.client_public.clone()],
            host_key: keys.host_private.clone(),
            root: RootLayout::Plain { disk: [0; 16] },
            work: None,
            env: env.iter().map(own).collect(),
            op_id: [1; 16],
            control: Control::VirtioSerial { name: "none".to_owned() },
            ssh_port: port,
        };
        let file = dir.path().join("config");
        std::fs::write(&file, drive::encode(&config.into()).unwrap()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test plays the hypervisor")]
        let mut child = std::process::Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening =
            lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("listening"));
        let guest = Self { child, port, keys, _dir: dir, _program: None };
        // What it says later is read, or it would stop when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        listening.then_some(guest)
    }

    pub(crate) fn endpoint(&self) -> EndpointInfo {
        EndpointInfo {
            vm_id: "e".repeat(32),
            name: "web".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            host_key: self.keys.host_public.clone(),
            client_private: self.keys.client_private.clone(),
            env: vec![],
        }
    }
}

impl Drop for AgentGuest {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can run the agent outside a guest");
    }
    root
}

/// Built if need be: another package's programs are not built for the tests of this one.
pub(crate) fn agent_program() -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_banger")).parent().unwrap();
    let program = programs.join("banger-agent");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("agent");
    if program.metadata().is_ok_and(|built| built.modified().unwrap() >= newest(&sources)) {
        return program;
    }
    let mut cargo = assert_cmd::Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "banger-agent"]);
    if programs.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(programs.parent().unwrap());
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).assert().success();
    program
}

fn newest(path: &Path) -> SystemTime {
    let own = path.metadata().unwrap().modified().unwrap();
    if !path.is_dir() {
        return own;
    }
    let entries = path.read_dir().unwrap().map(|entry| newest(&entry.unwrap().path()));
    entries.max().unwrap_or(own)
}
