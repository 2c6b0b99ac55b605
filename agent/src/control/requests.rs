//! What the host may ask of a running guest.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use banger_agent::contract::control::{
    Adoption, Fresh, GuestEvent, HostBody, HostRequest, ReadyInfo, ShutdownMode,
};
use banger_agent::contract::drive::{self, Boot};
use banger_agent::contract::image::ImageStart;
use banger_agent::contract::{CONTRACT_VERSION, VSOCK_SSH_PORT};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use super::check::Checks;
use super::entropy;
use crate::error::{AgentError, Chain, Context as _, Result};
use crate::init::{self, InitKind, Storage};
use crate::log::{self, Op};
use crate::main_program;
use crate::ssh::{self, Sessions};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Answers requests. What it says of readiness was true when the server began to listen.
pub(super) struct Desk {
    info: ReadyInfo,
    kind: InitKind,
    storage: Storage,
    sessions: Sessions,
    blank: Option<Blank>,
    /// Whose guest this became; not known of one that was nobody else's before.
    adopted_by: Option<[u8; 16]>,
    /// Of every command in this guest.
    env: Vec<(String, String)>,
    checks: Checks,
}

/// Those who wait to be told who this guest is.
pub(crate) struct Blank {
    pub(crate) server: ssh::Blank,
    /// PID 1, which reads until its end.
    pub(crate) parent: File,
}

impl Desk {
    pub(super) fn new(
        boot: &Boot,
        kind: InitKind,
        storage: Storage,
        sessions: Sessions,
        blank: Option<Blank>,
    ) -> Self {
        let config = &boot.guest;
        let info = ReadyInfo {
            contract: CONTRACT_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: read_line(BOOT_ID),
            kernel_release: read_line("/proc/sys/kernel/osrelease"),
            os_name: os_name(),
            ssh_port: config.ssh_port,
            vsock: fs::exists("/dev/vsock").unwrap_or(false).then_some(VSOCK_SSH_PORT),
            boot_millis: log::boot_millis(),
        };
        let what = if blank.is_some() { "blank" } else { "ready" };
        log::line(format_args!("{what}, {} ({})", Op(config.op_id), info.os_name));
        let (env, checks) = (config.env.clone(), Checks::default());
        if blank.is_none() && kind == InitKind::Agent {
            main_program::start(&boot.image, config);
        }
        Self { info, kind, storage, sessions, blank, adopted_by: None, env, checks }
    }

    pub(super) fn ready(&self) -> GuestEvent {
        GuestEvent::Ready(self.info.clone())
    }

    pub(super) fn handle(&mut self, request: HostRequest, send: &mut dyn FnMut(&GuestEvent)) {
        let op_id = request.op_id;
        match request.body {
            HostBody::Hello { .. } => send(&self.ready()),
            HostBody::Ping => send(&GuestEvent::Pong { op_id }),
            HostBody::Sync => {
                nix::unistd::sync();
                log::debug(format_args!("synced, {}", Op(op_id)));
                send(&GuestEvent::Synced { op_id });
            }
            HostBody::SetClock { unix_nanos } => {
                if let Err(message) = set_clock(unix_nanos) {
                    send(&GuestEvent::Failed { op_id, message });
                }
            }
            HostBody::Resumed { unix_nanos, entropy } => {
                log::line(format_args!("resumed, {}", Op(op_id)));
                // Before anybody is let in, and before keys are made for them.
                let done = entropy::renew(&entropy).and_then(|()| set_clock(unix_nanos));
                self.sessions.end();
                send(&match done {
                    Ok(()) => GuestEvent::Resumed { op_id, boot_id: self.info.boot_id.clone() },
                    Err(message) => GuestEvent::Failed { op_id, message },
                });
            }
            HostBody::Adopt(adoption) => {
                send(&self.answer_adoption(op_id, &adoption, &ImageStart::default()));
            }
            HostBody::AdoptFor { adoption, image } => {
                send(&self.answer_adoption(op_id, &adoption, &image));
            }
            HostBody::Check { command, limit_ms } => {
                let limit = Duration::from_millis(limit_ms);
                send(&self.checks.answer(op_id, &command, limit, &self.env));
            }
            HostBody::Shutdown { mode, grace_ms } => {
                log::line(format_args!(
                    "shutdown asked for, {mode:?} within {grace_ms} ms, {}",
                    Op(op_id)
                ));
                send(&GuestEvent::ShuttingDown { op_id });
                self.shut_down(mode, Duration::from_millis(grace_ms));
            }
        }
    }

    fn answer_adoption(
        &mut self,
        op_id: [u8; 16],
        adoption: &Adoption,
        image: &ImageStart,
    ) -> GuestEvent {
        match self.adopt(adoption, image) {
            Ok(()) => {
                let name = &adoption.config.hostname;
                log::line(format_args!("is {name} from now on, {}", Op(op_id)));
                GuestEvent::Adopted { op_id, ready: self.info.clone() }
            }
            Err(error) => {
                let message = Chain(&error).to_string();
                log::line(format_args!("not adopted: {message}, {}", Op(op_id)));
                GuestEvent::Failed { op_id, message }
            }
        }
    }

    /// What fails half way leaves a guest that is nobody for good: the host ends it. A host that did
    /// not hear the answer may ask again.
    fn adopt(&mut self, adoption: &Adoption, image: &ImageStart) -> Result<()> {
        if self.adopted_by == Some(adoption.config.vm_id) {
            return Ok(());
        }
        let Blank { server, mut parent } = self
            .blank
            .take()
            .ok_or_else(|| AgentError::Missing("this guest was told before who it is".into()))?;
        let who = ssh::Who::of(&adoption.config)?;
        // Before anything can draw a random number.
        let Fresh { entropy, unix_nanos } = &adoption.fresh;
        let renewed = entropy::renew(entropy).and_then(|()| set_clock(*unix_nanos));
        renewed.map_err(AgentError::Missing)?;
        init::adopt(&adoption.config)?;
        init::make_directories(image);
        self.info.boot_id = read_line(BOOT_ID);
        if !server.serve_as(who) {
            return Err(AgentError::Missing("the server has ended".into()));
        }
        let boot = Boot { guest: adoption.config.clone(), image: image.clone() };
        let config = drive::encode(&boot)
            .map_err(|source| AgentError::Drive { device: "for PID 1".to_owned(), source })?;
        parent.write_all(&config).context(|| "tell PID 1".into())?;
        self.adopted_by = Some(adoption.config.vm_id);
        self.env.clone_from(&adoption.config.env);
        if self.kind == InitKind::Agent {
            main_program::start(image, &adoption.config);
        }
        Ok(())
    }

    /// Asks PID 1, and ends the machine itself if that takes longer than the grace. Meanwhile
    /// the link goes on answering.
    fn shut_down(&self, mode: ShutdownMode, grace: Duration) {
        // First of all: whatever happens next, what was written before this is on disk.
        nix::unistd::sync();
        let (kind, storage) = (self.kind, self.storage.clone());
        let end = move || {
            let begun = Instant::now();
            main_program::stop(grace / 2);
            let left = grace.saturating_sub(begun.elapsed());
            init::request(kind, mode, left);
            let timeout =
                nix::poll::PollTimeout::try_from(left).unwrap_or(nix::poll::PollTimeout::MAX);
            let _ = nix::poll::poll(&mut [], timeout);
            log::line("the image's init did not end the machine in time");
            init::finish(mode, &storage);
        };
        if std::thread::Builder::new().name("shutdown".into()).spawn(end).is_err() {
            init::request(self.kind, mode, grace);
        }
    }
}

fn set_clock(unix_nanos: u64) -> std::result::Result<(), String> {
    let time = Duration::from_nanos(unix_nanos);
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(time))
        .map_err(|errno| format!("set the clock: {}", errno.desc()))
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn os_name() -> String {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| pretty_name(&fs::read_to_string(path).ok()?))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pretty_name_loses_its_quotes() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(text).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("NAME=x\n"), None);
    }
}
