//! PID 1 where the image has no init: takes in orphans, keeps the server alive, and ends the
//! machine when asked to. The server waits for its own children; here only the server itself and
//! processes without a parent end up.

use std::time::{Duration, Instant};

use banger_agent::contract::control::ShutdownMode;
use banger_agent::contract::drive::Boot;
use nix::errno::Errno;
use nix::libc;
use nix::sys::reboot::set_cad_enabled;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::boot::{Server, start_server};
use super::poweroff::finish;
use crate::error::Chain;
use crate::log;

const DEFAULT_GRACE: Duration = Duration::from_secs(5);
/// Of the grace, what is left for making the disks clean.
const DISK_SHARE: Duration = Duration::from_secs(1);
/// A server that dies more often than this is not brought back.
const MAX_RESTARTS: u32 = 5;

struct Wanted {
    mode: ShutdownMode,
    grace: Duration,
}

pub(super) fn run(boot: &Boot, server: Server) -> ! {
    let signals = signals();
    // Blocked for good: signals are taken one by one, so none can be lost between two looks.
    block(&signals);
    // The console's Ctrl-Alt-Del becomes a SIGINT to PID 1.
    let _ = set_cad_enabled(false);
    let mut server = server;
    let mut restarts = 0;
    loop {
        if reap(server.pid) {
            log::line("the server died");
            restarts += 1;
            if restarts <= MAX_RESTARTS {
                server = restart(boot, server, &signals);
            }
        }
        if let Some(wanted) = next_signal(&signals) {
            shut_down(&wanted, &server)
        }
    }
}

fn restart(boot: &Boot, old: Server, signals: &libc::sigset_t) -> Server {
    unblock(signals);
    let storage = old.storage.clone();
    let started = start_server(boot, old.kind, storage);
    block(signals);
    started.map(|(server, _)| server).unwrap_or_else(|error| {
        log::line(format_args!("the server could not be started again: {}", Chain(&error)));
        old
    })
}

/// Takes in whoever has ended; true if the server was among them.
fn reap(server: Pid) -> bool {
    let mut server_ended = false;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                server_ended |= pid == server
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return server_ended,
            Ok(_) | Err(_) => {}
        }
    }
}

fn shut_down(wanted: &Wanted, server: &Server) -> ! {
    log::line(format_args!(
        "shutting down: {:?}, {} ms for processes",
        wanted.mode,
        wanted.grace.as_millis()
    ));
    // The server outlives SIGTERM by design and would only use up the grace.
    let _ = kill(server.pid, Signal::SIGKILL);
    let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
    // Stopped processes get to see it.
    let _ = kill(Pid::from_raw(-1), Signal::SIGCONT);
    let end = Instant::now() + wanted.grace.saturating_sub(DISK_SHARE);
    while Instant::now() < end {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => break,
            Ok(WaitStatus::StillAlive) => {
                let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5_u8));
            }
            _ => {}
        }
    }
    finish(wanted.mode, &server.storage)
}

/// Those of systemd (RTMIN+4, +5), of BusyBox (USR1, USR2, TERM) and of the kernel (INT).
fn signals() -> libc::sigset_t {
    let mut set = SigSet::empty();
    for signal in
        [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2]
    {
        set.add(signal);
    }
    let mut raw = *set.as_ref();
    for number in [4, 5] {
        // SAFETY: adds a valid signal number to an initialised set.
        #[allow(unsafe_code, reason = "real-time signals have no safe form")]
        let _ = unsafe { libc::sigaddset(&raw mut raw, libc::SIGRTMIN() + number) };
    }
    raw
}

fn block(signals: &libc::sigset_t) {
    mask(libc::SIG_BLOCK, signals);
}

fn unblock(signals: &libc::sigset_t) {
    mask(libc::SIG_UNBLOCK, signals);
}

fn mask(how: libc::c_int, signals: &libc::sigset_t) {
    // SAFETY: reads an initialised set; PID 1 has one thread.
    #[allow(unsafe_code, reason = "real-time signals have no safe form")]
    let _ = unsafe { libc::sigprocmask(how, &raw const *signals, std::ptr::null_mut()) };
}

fn next_signal(signals: &libc::sigset_t) -> Option<Wanted> {
    // SAFETY: an all-zero siginfo_t is a valid value, and the call only writes into it.
    #[allow(unsafe_code, reason = "sigwaitinfo has no safe form")]
    let (number, value) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let number = libc::sigwaitinfo(&raw const *signals, &raw mut info);
        let queued = number > 0 && info.si_code == libc::SI_QUEUE;
        (number, if queued { info.si_value().sival_ptr as usize } else { 0 })
    };
    let mode = mode_of(number)?;
    let grace = match u64::try_from(value) {
        Ok(millis) if millis > 0 => Duration::from_millis(millis),
        _ => DEFAULT_GRACE,
    };
    Some(Wanted { mode, grace })
}

fn mode_of(number: libc::c_int) -> Option<ShutdownMode> {
    match number {
        libc::SIGTERM | libc::SIGINT => Some(ShutdownMode::Reboot),
        libc::SIGUSR1 | libc::SIGUSR2 => Some(ShutdownMode::PowerOff),
        number if number == libc::SIGRTMIN() + 4 => Some(ShutdownMode::PowerOff),
        number if number == libc::SIGRTMIN() + 5 => Some(ShutdownMode::Reboot),
        _ => None,
    }
}
