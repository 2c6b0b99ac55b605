//! The order of a boot. Each stage is named, so that a failure says where it happened, on the
//! console and to the host; a failed boot ends in a reboot, which ends the VMM.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_agent::contract::config::Control;
use banger_agent::contract::control::PORT_NAME;
use banger_agent::contract::drive::{self, Boot};
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};

use super::{directories, disks, handover, identity, modules, mounts, net, poweroff, reaper};
use crate::error::{AgentError, Chain, Context as _, Result};
use crate::init::{InitKind, Storage};
use crate::{control, log, serve};

/// How long a booting machine waits for devices to appear.
pub(super) const DEVICE_WAIT: Duration = Duration::from_secs(5);

/// Where the boot is; told to the host if it ends there.
struct Stage(&'static str);

impl Stage {
    fn enter(&mut self, name: &'static str) {
        log::debug(format_args!("stage {name}"));
        self.0 = name;
    }
}

pub(crate) fn run() -> ! {
    let mut stage = Stage("start");
    let mut control = Control::VirtioSerial { name: PORT_NAME.to_owned() };
    match boot(&mut stage, &mut control) {
        Ok(never) => match never {},
        Err(error) => {
            let text = Chain(&error).to_string();
            log::line(format_args!("boot failed at {}: {text}", stage.0));
            control::report_failure(&control, stage.0, &text);
            poweroff::reboot_now()
        }
    }
}

fn boot(stage: &mut Stage, control: &mut Control) -> Result<std::convert::Infallible> {
    stage.enter("mounts");
    mounts::early()?;
    log::read_level();
    stage.enter("modules");
    modules::insert_all();
    stage.enter("config");
    let mut disks = disks::Disks::default();
    let boot = disks.wait_for_config(DEVICE_WAIT)?;
    let config = &boot.guest;
    *control = config.control.clone();
    log::debug(format_args!("config read, {}", log::Op(config.op_id)));
    stage.enter("root");
    let storage = mounts::root(&config.root, &mut disks)?;
    if let Some(work) = config.work {
        stage.enter("work");
        mounts::work(&work, &mut disks)?;
    }
    stage.enter("switch-root");
    handover::switch_root()?;
    if !config.is_blank() {
        stage.enter("identity");
        identity::apply(config)?;
        directories::make_directories(&boot.image);
    }
    stage.enter("network");
    net::loopback_up()?;
    if let Some(net) = &config.net {
        net::configure(net)?;
    }
    stage.enter("server");
    let init = handover::find_init(&boot.image.init);
    if init.is_none() {
        mounts::control_groups();
    }
    let kind = if init.is_some() { InitKind::Image } else { InitKind::Agent };
    let (server, said) = start_server(&boot, kind, storage)?;
    let boot = match config.is_blank() {
        true => {
            stage.enter("adoption");
            await_adoption(said)?
        }
        false => boot,
    };
    stage.enter("handover");
    if let Some(path) = init {
        handover::exec_init(&path, &boot);
        // Only reached if the image's init cannot be executed. The server believes in an image's
        // init and would signal it; the reaper understands the same signals.
    }
    reaper::run(&boot, server)
}

/// The server of a boot: its process, and what a successor needs.
pub(super) struct Server {
    pub(super) pid: Pid,
    pub(super) kind: InitKind,
    pub(super) storage: Storage,
}

/// What a server says after its first word.
pub(super) type Said = io::Chain<io::Cursor<Vec<u8>>, File>;

/// Returns once the server listens, or says why it does not, with what more it will say.
///
/// Waiting costs nothing: the image's init would only take time from the server, and readiness
/// is what the host waits for.
pub(super) fn start_server(
    boot: &Boot,
    kind: InitKind,
    storage: Storage,
) -> Result<(Server, Said)> {
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context(|| "make a pipe".into())?;
    // SAFETY: PID 1 has one thread, so the child may do anything.
    #[allow(unsafe_code, reason = "fork has no safe form")]
    let forked = unsafe { nix::unistd::fork() }.context(|| "fork the server".into())?;
    match forked {
        ForkResult::Child => {
            drop(read);
            serve::child(boot, kind, storage, write)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let said = wait_for_server(read)?;
            Ok((Server { pid: child, kind, storage }, said))
        }
    }
}

fn wait_for_server(read: OwnedFd) -> Result<Said> {
    let mut said = [0; 1024];
    let mut pipe = File::from(read);
    let length = pipe.read(&mut said).context(|| "hear from the server".into())?;
    let said = said.get(..length).unwrap_or_default();
    match said.strip_prefix(serve::LISTENING) {
        Some(more) => Ok(io::Cursor::new(more.to_vec()).chain(pipe)),
        None if said.is_empty() => Err(AgentError::Missing("the server died".into())),
        None => Err(AgentError::Missing(String::from_utf8_lossy(said).into_owned())),
    }
}

/// Nothing of the image runs before the guest is somebody, so that whatever its init reads or
/// draws at its start is this guest's own. The server says who that is.
fn await_adoption(mut said: Said) -> Result<Boot> {
    let mut drive = vec![];
    said.read_to_end(&mut drive).context(|| "hear who this guest is".into())?;
    if drive.is_empty() {
        return Err(AgentError::Missing("the server died before the guest was adopted".into()));
    }
    let device = "of the server".to_owned();
    drive::decode(&drive).map_err(|source| AgentError::Drive { device, source })
}

/// Rust ignores SIGPIPE, and what a process ignores its successor ignores too.
pub(super) fn restore_signals() {
    // SAFETY: SIG_DFL is always a valid disposition.
    #[allow(unsafe_code, reason = "signal dispositions have no safe form")]
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
