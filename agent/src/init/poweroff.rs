//! The end of a machine. Whoever ends it, in this order: processes, file systems, `reboot(2)`.
//! What a program synced is on disk before; what it only wrote is flushed here.
//!
//! File systems are frozen instead of unmounted. Freezing writes everything back and leaves the
//! journal empty, and it works on the root and on the disk hidden under the overlay, neither of
//! which can be unmounted.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use banger_agent::contract::control::ShutdownMode;
use nix::errno::Errno;
use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mounts::open_dir;
use crate::log;

nix::ioctl_readwrite!(
    /// `FIFREEZE`; its argument is not used.
    fifreeze,
    b'X',
    119,
    libc::c_int
);

/// A disk that does not answer must not keep the machine from ending.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// Who is PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitKind {
    /// The image's own.
    Image,
    /// This program.
    Agent,
}

/// What is needed to leave the disks clean.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storage {
    /// The file system under the overlay, which no path leads to.
    upper: Option<Arc<OwnedFd>>,
}

impl Storage {
    pub(super) fn with_upper(upper: OwnedFd) -> Self {
        Self { upper: Some(Arc::new(upper)) }
    }
}

/// Asks PID 1 to end the machine: systemd's real-time signals, with the grace in ms as their
/// value for our own init, or those of BusyBox.
pub(crate) fn request(kind: InitKind, mode: ShutdownMode, grace: Duration) {
    let (systemd, other) = match mode {
        ShutdownMode::PowerOff => (4, Signal::SIGUSR2),
        ShutdownMode::Reboot => (5, Signal::SIGTERM),
    };
    let is_systemd =
        std::fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim() == "systemd");
    if kind == InitKind::Agent || is_systemd {
        let value = usize::try_from(grace.as_millis()).unwrap_or(usize::MAX);
        // SAFETY: sends a signal; the value is an integer that nobody dereferences.
        #[allow(unsafe_code, reason = "real-time signals have no safe form")]
        let _ = unsafe {
            libc::sigqueue(
                1,
                libc::SIGRTMIN() + systemd,
                libc::sigval { sival_ptr: value as *mut libc::c_void },
            )
        };
    } else {
        let _ = kill(Pid::from_raw(1), other);
    }
}

/// Kills what is left, makes the disks clean and ends the machine. Never returns.
pub(crate) fn finish(mode: ShutdownMode, storage: &Storage) -> ! {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    nix::unistd::sync();
    freeze(storage);
    log::line(format_args!("machine ends: {mode:?}"));
    let _ = match mode {
        ShutdownMode::PowerOff => reboot(RebootMode::RB_POWER_OFF),
        ShutdownMode::Reboot => reboot(RebootMode::RB_AUTOBOOT),
    };
    // A machine without a way to power off is reset instead.
    reboot_now()
}

/// For a boot that failed: nothing was written that could be lost.
pub(super) fn reboot_now() -> ! {
    nix::unistd::sync();
    loop {
        let _ = reboot(RebootMode::RB_AUTOBOOT);
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(100_u8));
    }
}

/// Work disk and root first, then what the root writes to.
fn freeze(storage: &Storage) {
    let upper = storage.upper.clone();
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for path in ["/root", "/"] {
            if let Ok(dir) = open_dir(path) {
                freeze_one(path, &dir);
            }
        }
        if let Some(upper) = upper {
            freeze_one("overlay", &upper);
        }
        let _ = done.send(());
    });
    if wait.recv_timeout(FREEZE_LIMIT).is_err() {
        log::line("file systems could not be made clean in time");
    } else {
        drop(worker.join());
    }
}

fn freeze_one(what: &str, dir: &OwnedFd) {
    let mut unused = 0;
    // SAFETY: the descriptor is open, and the kernel does not use the argument.
    #[allow(unsafe_code, reason = "an ioctl")]
    match unsafe { fifreeze(dir.as_fd().as_raw_fd(), &raw mut unused) } {
        // An overlay cannot freeze; a disk that is both `/` and `/root` is frozen already.
        Ok(_) | Err(Errno::EOPNOTSUPP | Errno::EBUSY) => {}
        Err(errno) => log::line(format_args!("{what} could not be frozen: {}", errno.desc())),
    }
}
