//! The host's side of the vsock device: a Unix socket that takes `CONNECT <port>`, and sockets
//! `<path>_<port>` that are dialled for the guest.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::guest::Guest;
use crate::metrics::Metrics;

/// What the real one numbers its own ports from.
const FIRST_HOST_PORT: u32 = 1 << 30;
const MAX_LINE: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct Vsock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    metrics: Metrics,
    next_port: AtomicU32,
    guest: Mutex<Behind>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Behind {
    guest: Option<Guest>,
    paused: bool,
}

impl Vsock {
    pub(crate) fn open(path: &Path, metrics: &Metrics) -> Result<Self, String> {
        let bound = UnixListener::bind(path);
        let listener = bound
            .map_err(|error| format!("Error binding to the host-side Unix socket: {error}"))?;
        let vsock = Self(Arc::new(Inner {
            path: path.to_owned(),
            metrics: metrics.clone(),
            next_port: AtomicU32::new(FIRST_HOST_PORT),
            guest: Mutex::default(),
            changed: Condvar::new(),
        }));
        let serving = vsock.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let vsock = serving.clone();
                std::thread::spawn(move || vsock.connected(stream));
            }
        });
        Ok(vsock)
    }

    /// Another device takes its place. At the process's end the file stays, as the real one's does.
    pub(crate) fn close(self) {
        drop(std::fs::remove_file(&self.0.path));
    }

    /// From now on somebody is behind it.
    pub(crate) fn plug(&self, guest: Guest) {
        self.0.guest.lock().unwrap().guest = Some(guest);
    }

    pub(crate) fn guest(&self) -> Option<Guest> {
        self.0.guest.lock().unwrap().guest.clone()
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.0.guest.lock().unwrap().paused = paused;
        self.0.changed.notify_all();
    }

    /// While the guest is paused, whoever waits for it waits.
    pub(crate) fn wait_until_it_runs(&self) -> Option<Guest> {
        let behind = self.0.guest.lock().unwrap();
        let behind = self.0.changed.wait_while(behind, |behind| behind.paused).unwrap();
        behind.guest.clone()
    }

    /// What the guest dials.
    pub(crate) fn dial(&self, port: u32) -> std::io::Result<UnixStream> {
        let mut path = self.0.path.clone().into_os_string();
        path.push(format!("_{port}"));
        UnixStream::connect(path)
    }

    pub(crate) fn count(&self, received: usize, sent: usize) {
        let bytes = |count| u64::try_from(count).expect("not that many");
        self.0.metrics.add("vsock", "rx_bytes_count", bytes(received));
        self.0.metrics.add("vsock", "tx_bytes_count", bytes(sent));
    }

    fn connected(&self, mut stream: UnixStream) {
        let mut line = vec![];
        let mut byte = [0];
        while line.len() < MAX_LINE && matches!(stream.read(&mut byte), Ok(1)) && byte != *b"\n" {
            line.push(byte[0]);
        }
        let asked = String::from_utf8_lossy(&line).into_owned();
        let port = asked.strip_prefix("CONNECT ").and_then(|port| port.trim().parse().ok());
        let Some(port) = port else { return };
        // Where nobody listens, the connection is closed without a word.
        let Some(guest) = self.wait_until_it_runs().filter(|guest| guest.listens_on(port)) else {
            return;
        };
        let own = self.0.next_port.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(format!("OK {own}\n").as_bytes()).is_ok() {
            guest.exchange(&mut stream);
        }
    }
}
