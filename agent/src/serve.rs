//! The server process: how it comes to be, in a guest as PID 1's child and elsewhere by hand.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use banger_agent::contract::config::GuestConfig;
use banger_agent::contract::drive::{self, Boot};

use crate::error::{AgentError, Chain, Context as _, Result};
use crate::init::{InitKind, Storage};
use crate::{control, log, ssh};

/// Less likely to be killed for memory than all it runs; -1000 would make it unkillable.
const OOM_SCORE: &str = "-900";

/// What the child says first; what does not begin with it is why it does not listen.
pub(crate) const LISTENING: &[u8] = b"ok";

/// The child of PID 1. Writes [`LISTENING`] to `ready` once it listens, or why it does not. The
/// server of a blank guest listens to its control link alone, and writes the config that it is
/// told there, as a config drive.
pub(crate) fn child(boot: &Boot, kind: InitKind, storage: Storage, ready: OwnedFd) -> ! {
    let config = &boot.guest;
    let ready = File::from(ready);
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"banger-agent");
    drop(fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    drop(spare_from_shutdown());
    attach_to_console();
    let mut parent = Some(ready);
    let (blank, adopted) = ssh::blank();
    let adopted = config.is_blank().then_some(adopted);
    let served = run(config, adopted, |sessions| {
        // One write each, which the parent takes with one read.
        let Some(mut parent) = parent.take() else { return };
        drop(parent.write_all(LISTENING));
        let blank = config.is_blank().then(|| control::Blank { server: blank, parent });
        control::start(boot, kind, storage, sessions, blank);
    });
    if let Err(error) = &served {
        let text = format!("server: {}", Chain(error));
        log::line(&text);
        parent.map(|mut parent| parent.write_all(text.as_bytes()).ok());
    }
    // SAFETY: ends the process at once, without the destructors of what was forked with it.
    #[allow(unsafe_code, reason = "_exit has no safe form")]
    unsafe {
        nix::libc::_exit(i32::from(served.is_err()))
    }
}

/// `banger-agent serve FILE`: the SSH server of a config, on this machine.
pub(crate) fn stand_alone(file: &Path) -> ExitCode {
    log::to_stderr();
    let served = fs::read(file)
        .context(|| format!("read {}", file.display()))
        .and_then(|bytes| {
            drive::decode(&bytes)
                .map_err(|source| AgentError::Drive { device: file.display().to_string(), source })
        })
        .and_then(|boot| run(&boot.guest, None, |_| log::line("listening")));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line(Chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(
    config: &GuestConfig,
    adopted: Option<ssh::Adopted>,
    listening: impl FnOnce(ssh::Sessions),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the runtime".into())?;
    runtime.block_on(ssh::serve(config, adopted, listening))
}

/// systemd's last act kills every process but those whose command line begins with `@`: the
/// mark of what must live until the file systems are gone. The arguments of a process are its
/// own memory, so the mark is written there.
fn spare_from_shutdown() -> Result<()> {
    let stat = fs::read_to_string("/proc/self/stat").context(|| "read /proc/self/stat".into())?;
    // Fields are counted after the name in parentheses, which may hold spaces; arg_start is the 48th.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start =
        after_name.split_ascii_whitespace().nth(45).and_then(|field| field.parse::<u64>().ok());
    let start =
        start.ok_or_else(|| AgentError::Missing("no arg_start in /proc/self/stat".into()))?;
    let memory = OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")
        .context(|| "open /proc/self/mem".into())?;
    memory.write_all_at(b"@", start).context(|| "mark the command line".into())
}

/// Standard streams that stay valid whatever becomes of PID 1's.
fn attach_to_console() {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let console = OpenOptions::new().write(true).open("/dev/console");
    if let Ok(null) = &null {
        duplicate(null, 0);
    }
    if let Ok(out) = console.or(null) {
        duplicate(&out, 1);
        duplicate(&out, 2);
    }
}

fn duplicate(file: &File, onto: i32) {
    // SAFETY: both numbers are descriptors; the three standard ones are owned by nobody in Rust.
    #[allow(unsafe_code, reason = "dup2 onto the standard streams")]
    let _ = unsafe { nix::libc::dup2(file.as_raw_fd(), onto) };
}
