//! Which process is whose: identity by pid, start time and boot, ownership by uid, program and
//! command line. A pid alone is never trusted, and nothing is signalled but through a pidfd.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::config::Config;
use super::error::Trouble;
use crate::model::{ProcStat, ProcessIdentity, VmId};
use crate::wire::helper::{named_vms, names_vm};

/// A process that was seen alive, held by a pidfd: the pid cannot mean another one any more.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
    fd: OwnedFd,
}

pub(super) fn boot_id() -> Result<String, Trouble> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path);
    text.map(|id| id.trim().to_owned()).map_err(|error| Trouble::io("read", path, error))
}

pub(super) fn stat(pid: u32) -> Option<ProcStat> {
    ProcStat::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The running process of that pid. The pidfd comes first: what is read afterwards is its.
pub(super) fn hold(pid: u32) -> Option<Held> {
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let fd = pidfd_open(raw, PidfdFlags::NONBLOCK).ok()?;
    let stat = stat(pid).filter(|stat| stat.runs())?;
    Some(Held { pid, start_ticks: stat.start_ticks, fd })
}

impl Held {
    pub(super) fn identity(&self) -> Result<ProcessIdentity, Trouble> {
        let (pid, start_ticks) = (self.pid, self.start_ticks);
        Ok(ProcessIdentity { pid, start_ticks, host_boot_id: boot_id()? })
    }

    /// Gone already is success.
    pub(super) fn signal(&self, signal: i32) -> Result<(), Trouble> {
        let failed =
            |error: std::io::Error| Trouble::io("signal process", self.pid.to_string(), error);
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        match pidfd_send_signal(&self.fd, signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(failed(error.into())),
            _ => Ok(()),
        }
    }

    /// Ends when the process has; `false` when it has not within `limit`.
    pub(super) async fn ended(self, limit: Duration) -> Result<bool, Trouble> {
        let pid = self.pid.to_string();
        let failed = |error| Trouble::io("watch process", pid.clone(), error);
        #[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
        // SAFETY: the descriptor is owned by the `AsyncFd` until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd, Interest::READABLE) };
        let fd = fd.map_err(|error| failed(error.into()))?;
        match tokio::time::timeout(limit, fd.readable()).await {
            Ok(ready) => ready.map(|_| true).map_err(failed),
            Err(_) => Ok(false),
        }
    }
}

/// Whether this process is the VM's: has the id among its arguments, and leads its session: a VMM
/// is started so, and what it forks, still with its program and arguments, does not. And it runs as
/// the owner, a configured VMM; or as a user of the jail range, whose processes the helper alone can
/// make; or it is on its way there. Asked of a process that is held.
pub(super) fn is_vmm_of(config: &Config, pid: u32, vm: VmId) -> bool {
    let Some(uid) = uid_of(pid) else { return false };
    let own = uid == config.owner_uid;
    (own || uid == 0 || config.is_jailed(uid))
        && stat(pid).is_some_and(|stat| stat.session == pid)
        && argv(pid).is_some_and(|argv| {
            let args = argv.iter().skip(1).map(String::as_str);
            let runs = || match uid {
                0 => enters_jail(config, pid),
                _ => !own || runs_vmm(config, pid, &argv),
            };
            names_vm(args, vm.0) && runs()
        })
}

/// The porch, or the jailer that it becomes.
fn enters_jail(config: &Config, pid: u32) -> bool {
    let exe = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let (Some(jails), Some(found)) = (&config.jails, exe(&pid.to_string())) else { return false };
    found == jails.jailer.canonical
        || exe("self").is_some_and(|own| without_deleted(&own) == without_deleted(&found))
}

fn runs_vmm(config: &Config, pid: u32, argv: &[String]) -> bool {
    let known = |path: &Path| config.vmms.iter().any(|vmm| vmm.canonical == path);
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => known(&exe) || known(&without_deleted(&exe)),
        // Without CAP_SYS_PTRACE the link of another user's process cannot be read. The owner can
        // fake the name, but then it is the owner's own process that is found.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            argv.first().is_some_and(|name| known(Path::new(name)))
        }
        Err(_) => false,
    }
}

/// An upgrade replaces the program's file while VMs run on from the old one.
fn without_deleted(exe: &Path) -> PathBuf {
    let text = exe.to_string_lossy();
    PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text))
}

fn argv(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    Some(bytes.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
}

fn uid_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The VM's process among `pids`.
pub(super) fn pick(config: &Config, pids: impl IntoIterator<Item = u32>, vm: VmId) -> Option<Held> {
    pids.into_iter().find_map(|pid| {
        // Cheap and without a descriptor first; then held, and looked at again.
        if !is_vmm_of(config, pid, vm) {
            return None;
        }
        hold(pid).filter(|held| is_vmm_of(config, held.pid, vm))
    })
}

/// A VMM of whatever VM.
#[derive(Debug)]
pub(super) struct Vmm {
    pub(super) vm: VmId,
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
    pub(super) jailed: bool,
    /// Its command line names a file or socket of this helper's daemon.
    pub(super) marked: bool,
}

/// All VMMs that [`is_vmm_of`] would find, each for the VM that it names.
pub(super) fn vmms(config: &Config) -> Vec<Vmm> {
    all_pids().into_iter().filter_map(|pid| vmm(config, pid)).collect()
}

fn vmm(config: &Config, pid: u32) -> Option<Vmm> {
    let uid = uid_of(pid)?;
    if uid != config.owner_uid && uid != 0 && !config.is_jailed(uid) {
        return None;
    }
    let argv = argv(pid)?;
    let args = || argv.iter().skip(1).map(String::as_str);
    let vm = named_vms(args()).into_iter().map(VmId).find(|vm| is_vmm_of(config, pid, *vm))?;
    let held = hold(pid)?;
    let run = config.jails.as_ref().map(|jails| jails.vm_run_dir.as_path());
    let ours = |word: &str| {
        let path = Path::new(word);
        path.starts_with(&config.state_dir) || run.is_some_and(|run| path.starts_with(run))
    };
    let marked = args().flat_map(|arg| arg.split([',', '=', ':'])).any(ours);
    let jailed = config.is_jailed(uid);
    Some(Vmm { vm, pid, start_ticks: held.start_ticks, jailed, marked })
}

/// Every pid there is.
pub(super) fn all_pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_held_and_is_no_vmm() {
        let pid = std::process::id();
        let held = hold(pid).unwrap();
        assert_eq!(held.start_ticks, stat(pid).unwrap().start_ticks);
        assert_eq!(held.identity().unwrap().host_boot_id.len(), 36);
        let config = crate::helper::config::tests::config();
        assert!(!is_vmm_of(&config, pid, VmId([1; 16])));
        assert!(all_pids().contains(&pid));
        assert!(uid_of(pid).is_some() && argv(pid).is_some());
    }

    /// As a porch and a jailer are before they give root up.
    #[test]
    fn what_enters_a_jail_is_known_by_its_program() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let vm = VmId([0xcd; 16]);
        let mut config = crate::helper::config::tests::config();
        let shell = Path::new("/bin/sh").canonicalize().unwrap();
        #[allow(clippy::disallowed_methods, reason = "a process to look at")]
        let mut child = std::process::Command::new("setsid")
            .args(["/bin/sh", "-c", "kill -STOP $$", "sh", "--id", &vm.to_string()])
            .spawn()
            .unwrap();
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.contains(") T ")
        };
        while !stopped() {
            std::thread::yield_now();
        }
        assert!(!is_vmm_of(&config, child.id(), vm), "it is no jailer");
        config.jails.as_mut().unwrap().jailer.canonical = shell;
        assert!(is_vmm_of(&config, child.id(), vm));
        assert!(!is_vmm_of(&config, child.id(), VmId([1; 16])));
        config.jails = None;
        assert!(!is_vmm_of(&config, child.id(), vm));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_replaced_program_is_still_known() {
        let deleted = Path::new("/usr/bin/qemu (deleted)");
        assert_eq!(without_deleted(deleted), Path::new("/usr/bin/qemu"));
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        #[allow(clippy::disallowed_methods, reason = "a process to watch")]
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let held = hold(child.id()).unwrap();
        let again = hold(child.id()).unwrap();
        assert!(!again.ended(Duration::from_millis(1)).await.unwrap());
        held.signal(9).unwrap();
        assert!(held.ended(Duration::from_secs(10)).await.unwrap());
        assert!(hold(child.id()).is_none(), "a zombie does not run");
        child.wait().unwrap();
    }
}
