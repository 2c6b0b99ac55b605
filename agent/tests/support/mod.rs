//! The server under test, and its keys.

#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use banger_agent::contract::config::{Control, GuestConfig, RootLayout};
use banger_agent::contract::drive;

pub(crate) const HOST_KEY: &str = include_str!("../fixtures/test_host_key");
pub(crate) const CLIENT_KEY: &str = include_str!("../fixtures/test_client_key");
pub(crate) const CLIENT_PUBLIC: &str = include_str!("../fixtures/test_client_key.pub");

/// A running server; ended and cleaned up when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(name: &str) -> Self {
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = GuestConfig {
            vm_id: [1; 16],
            hostname: "test".into(),
            net: None,
            authorized_keys: vec![CLIENT_PUBLIC.into()],
            host_key: HOST_KEY.into(),
            root: RootLayout::Plain { disk: [0; 16] },
            work: None,
            env: vec![("FROM_CONFIG".into(), "config".into())],
            op_id: [2; 16],
            control: Control::Vsock { port: 1 },
            ssh_port: port,
        };
        let dir = std::env::temp_dir().join(format!("banger-agent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config");
        std::fs::write(&file, drive::encode(&config.into()).unwrap()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "the program under test")]
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_banger-agent"))
            .args(["serve".as_ref(), file.as_os_str()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("listening")));
        // Keeps the pipe open, so that the server can go on logging.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, dir, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
