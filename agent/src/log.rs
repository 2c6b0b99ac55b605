//! Log lines for the VM's serial log. The console is opened for each line, because a getty hangs
//! it up; where there is none, the kernel's log takes the line.
//!
//! What must not be done here: no buffering (the machine may end with the next instruction) and
//! no failing, for a log line is never worth a boot.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::time::{ClockId, clock_gettime};

static STDERR: AtomicBool = AtomicBool::new(false);
static DEBUG: AtomicBool = AtomicBool::new(false);

/// Lines go to standard error: the agent runs outside a guest.
pub(crate) fn to_stderr() {
    STDERR.store(true, Ordering::Relaxed);
}

/// Stage timings are logged where the kernel's command line has `banger.debug`.
pub(crate) fn read_level() {
    let debug = fs::read_to_string("/proc/cmdline")
        .is_ok_and(|line| line.split_ascii_whitespace().any(|word| word == "banger.debug"));
    DEBUG.store(debug, Ordering::Relaxed);
}

pub(crate) fn line(text: impl Display) {
    let now = boot_millis();
    let line = format!("banger-agent: [{}.{:03}] {text}\n", now / 1000, now % 1000);
    if STDERR.load(Ordering::Relaxed) {
        drop(std::io::stderr().write_all(line.as_bytes()));
        return;
    }
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    for path in ["/dev/console", "/dev/kmsg"] {
        let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
        if opened.is_ok_and(|mut file| file.write_all(line.as_bytes()).is_ok()) {
            return;
        }
    }
}

pub(crate) fn debug(text: impl Display) {
    if DEBUG.load(Ordering::Relaxed) {
        line(text);
    }
}

/// Since the kernel's start.
pub(crate) fn boot_millis() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap_or(0)
    })
}

/// An op_id as the host writes it.
pub(crate) struct Op(pub(crate) [u8; 16]);

impl Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "op-{:032x}", u128::from_be_bytes(self.0))
    }
}
