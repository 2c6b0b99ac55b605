//! Watching a process that is nobody's child here: by pidfd, told by the kernel, never polled.
//!
//! A pid is taken for a process only together with its start time and the host's boot. Signals are
//! not sent from here; that is the helper's.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::model::{ProcStat, ProcessIdentity};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which boot of the host this is: a small read of procfs, no need for a blocking thread.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Whether this very process runs. A zombie does not. What cannot be looked at, for want of a
/// descriptor, is not taken for dead.
#[must_use]
pub fn is_alive(process: &ProcessIdentity) -> bool {
    if boot_id().is_ok_and(|id| id != process.host_boot_id) {
        return false;
    }
    match std::fs::read_to_string(stat_path(process)) {
        Ok(text) => ProcStat::parse(&text).is_some_and(|stat| stat.runs() && is_it(stat, process)),
        // The second: it ended between being opened and being read.
        Err(error) => {
            let gone = [Errno::NOENT, Errno::SRCH].map(Errno::raw_os_error);
            !error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
        }
    }
}

/// Whether this very process stands still until somebody lets it go on.
#[must_use]
pub fn is_stopped(process: &ProcessIdentity) -> bool {
    stat_of(process).is_some_and(ProcStat::is_stopped)
}

fn stat_of(process: &ProcessIdentity) -> Option<ProcStat> {
    let stat = std::fs::read_to_string(stat_path(process)).ok()?;
    ProcStat::parse(&stat).filter(|stat| is_it(*stat, process))
}

fn stat_path(process: &ProcessIdentity) -> String {
    format!("/proc/{}/stat", process.pid)
}

fn is_it(stat: ProcStat, process: &ProcessIdentity) -> bool {
    stat.start_ticks == process.start_ticks
}

/// Ends when this very process has ended; at once if it has already.
pub async fn ended(process: &ProcessIdentity) -> io::Result<()> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // The descriptor first: if the identity is right now, the descriptor is this process's.
    if !is_alive(process) {
        return Ok(());
    }
    #[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    // SAFETY: the descriptor is owned by the `AsyncFd` until it is dropped.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    let fd = fd.map_err(io::Error::from)?;
    let ready = fd.readable().await?;
    drop(ready);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a process to watch")]
    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn identity(pid: u32) -> ProcessIdentity {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        ProcessIdentity {
            pid,
            start_ticks: ProcStat::parse(&stat).unwrap().start_ticks,
            host_boot_id: boot_id().unwrap(),
        }
    }

    #[tokio::test]
    async fn the_end_is_told_and_a_zombie_is_not_alive() {
        let mut child = sleeper();
        let process = identity(child.id());
        assert!(is_alive(&process));
        let watch = tokio::spawn({
            let process = process.clone();
            async move { ended(&process).await }
        });
        tokio::task::yield_now().await;
        assert!(!watch.is_finished());
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(10), watch).await.unwrap().unwrap().unwrap();
        assert!(!is_alive(&process));
        child.wait().unwrap();
        ended(&process).await.unwrap();
    }

    #[test]
    fn one_that_is_stopped_is_alive_and_told_apart() {
        use nix::sys::signal::{Signal, kill};
        let mut child = sleeper();
        let process = identity(child.id());
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let becomes = |stopped| {
            while is_stopped(&process) != stopped {
                std::thread::yield_now();
            }
        };
        becomes(false);
        kill(pid, Signal::SIGSTOP).unwrap();
        becomes(true);
        assert!(is_alive(&process));
        kill(pid, Signal::SIGCONT).unwrap();
        becomes(false);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_stopped(&process));
    }

    #[tokio::test]
    async fn another_process_of_that_pid_is_not_it() {
        let own = identity(std::process::id());
        assert!(is_alive(&own));
        let earlier = ProcessIdentity { start_ticks: own.start_ticks - 1, ..own.clone() };
        let boot = ProcessIdentity { host_boot_id: "another".into(), ..own.clone() };
        for other in [earlier, boot, ProcessIdentity { pid: 0, ..own }] {
            assert!(!is_alive(&other));
            ended(&other).await.unwrap();
        }
    }
}
