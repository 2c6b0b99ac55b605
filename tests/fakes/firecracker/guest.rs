//! The played guest: an agent that says that it is ready and does what it is asked.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_agent::contract::config::{Control, GuestConfig};
use banger_agent::contract::control::{
    FrameReader, GuestEvent, HostBody, HostRequest, ReadyInfo, ShutdownMode, encode_frame,
};
use banger_agent::contract::{CONTRACT_VERSION, drive};

use crate::faults::Planned;
use crate::metrics::Metrics;
use crate::vsock::Vsock;

/// Between two tries to dial a host that does not listen.
const REDIAL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(crate) struct Guest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: GuestConfig,
    boot_id: String,
    planned: Planned,
    vsock: Vsock,
    metrics: Metrics,
    /// Whether the agent listens.
    up: AtomicBool,
}

impl Guest {
    /// The guest of the drives' configuration, if they hold one; of that boot, if it goes on.
    pub(crate) fn new<'a>(
        drives: impl IntoIterator<Item = &'a Path>,
        planned: &Planned,
        vsock: &Vsock,
        metrics: &Metrics,
        resumed: Option<String>,
    ) -> Option<Self> {
        let config = drives.into_iter().find_map(|path| {
            let mut bytes = vec![];
            let file = std::fs::File::open(path).ok()?;
            let most = u64::try_from(drive::MAX_DRIVE_BYTES).ok()?;
            file.take(most).read_to_end(&mut bytes).ok()?;
            Some(drive::decode(&bytes).ok()?.guest)
        })?;
        let kernel_random = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
        // A jail has no /proc; then the clock has to do.
        let boot_id = resumed.unwrap_or_else(|| match kernel_random {
            Ok(id) => id.trim().to_owned(),
            Err(_) => format!("00000000-0000-4000-8000-{:012x}", crate::metrics::now_ms()),
        });
        Some(Self(Arc::new(Inner {
            config,
            boot_id,
            planned: planned.clone(),
            vsock: vsock.clone(),
            metrics: metrics.clone(),
            up: AtomicBool::new(false),
        })))
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.0.boot_id
    }

    /// Boots: tells the host, until somebody listens.
    pub(crate) fn boot(&self) {
        let Control::Vsock { port } = self.0.config.control else {
            panic!("the configuration drive names no vsock: {:?}", self.0.config.control);
        };
        let guest = self.clone();
        std::thread::spawn(move || {
            if guest.0.planned.silent {
                return;
            }
            if guest.0.planned.fails.is_none() {
                guest.0.up.store(true, Ordering::SeqCst);
            }
            loop {
                if let Ok(mut stream) = guest.0.vsock.dial(port)
                    && guest.say(&mut stream, &guest.news())
                {
                    return guest.exchange(&mut stream);
                }
                std::thread::sleep(REDIAL);
            }
        });
    }

    /// It went on as it was: what listened listens.
    pub(crate) fn resumed(&self) {
        self.0.up.store(true, Ordering::SeqCst);
    }

    pub(crate) fn listens_on(&self, port: u32) -> bool {
        let ours = matches!(self.0.config.control, Control::Vsock { port: own } if own == port);
        ours && self.0.up.load(Ordering::SeqCst)
    }

    fn news(&self) -> GuestEvent {
        if let Some((stage, error)) = &self.0.planned.fails {
            return GuestEvent::NotReady { stage: stage.clone(), error: Some(error.clone()) };
        }
        GuestEvent::Ready(ReadyInfo {
            contract: CONTRACT_VERSION,
            agent_version: "0.0.0-fake".to_owned(),
            boot_id: self.0.boot_id.clone(),
            kernel_release: "6.1.0-fake".to_owned(),
            os_name: "A played guest".to_owned(),
            ssh_port: self.0.config.ssh_port,
            vsock: None,
            boot_millis: 1,
        })
    }

    /// Answers until the host leaves.
    pub(crate) fn exchange(&self, stream: &mut UnixStream) {
        let mut reader = FrameReader::default();
        let mut bytes = [0; 4096];
        loop {
            let length = match stream.read(&mut bytes) {
                Ok(length) if length > 0 => length,
                _ => return,
            };
            self.0.vsock.wait_until_it_runs();
            self.0.vsock.count(length, 0);
            reader.push(&bytes[..length]);
            while let Ok(Some(request)) = reader.next_message::<HostRequest>() {
                self.handle(request, stream);
            }
        }
    }

    fn handle(&self, request: HostRequest, stream: &mut UnixStream) {
        let op_id = request.op_id;
        match request.body {
            HostBody::Hello { .. } => drop(self.say(stream, &self.news())),
            HostBody::Ping => drop(self.say(stream, &GuestEvent::Pong { op_id })),
            HostBody::Sync => drop(self.say(stream, &GuestEvent::Synced { op_id })),
            HostBody::Resumed { .. } => {
                let boot_id = self.boot_id().to_owned();
                self.say(stream, &GuestEvent::Resumed { op_id, boot_id });
            }
            HostBody::Shutdown { mode, .. } => {
                self.say(stream, &GuestEvent::ShuttingDown { op_id });
                if !self.0.planned.ignore_shutdown {
                    self.end(mode);
                }
            }
            _ => {}
        }
    }

    /// A reboot ends the process, a power-off only the guest.
    fn end(&self, mode: ShutdownMode) {
        match mode {
            ShutdownMode::Reboot => self.0.metrics.exit(0),
            ShutdownMode::PowerOff => self.0.up.store(false, Ordering::SeqCst),
        }
    }

    fn say(&self, stream: &mut UnixStream, event: &GuestEvent) -> bool {
        let frame = encode_frame(event).expect("an event is encoded");
        self.0.vsock.count(0, frame.len());
        stream.write_all(&frame).is_ok()
    }
}
