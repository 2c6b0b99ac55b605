//! What a VMM's process takes, from `/proc` and, where it has a cgroup of its own, from there:
//! that counts finer, and what the process started too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

use super::pidfd::is_alive;
use crate::model::{ProcStat, ProcessIdentity, ProcessUsage, VmId};

const MICROS: u64 = 1_000_000;

/// None when the process has ended.
pub fn usage(vm: VmId, process: &ProcessIdentity) -> io::Result<Option<ProcessUsage>> {
    let proc = Path::new("/proc").join(process.pid.to_string());
    let (stat, statm) = match (read(&proc.join("stat"))?, read(&proc.join("statm"))?) {
        (Some(stat), Some(statm)) => (stat, statm),
        _ => return Ok(None),
    };
    let cgroup = read(&proc.join("cgroup"))?.and_then(|text| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        cgroup_of(vm, &text, &mounts)
    });
    // Asked last: if it is this process still, all that was read is its.
    if !is_alive(process) {
        return Ok(None);
    }
    let of_cgroup = |file: &str| read(&cgroup.as_ref()?.join(file)).ok().flatten();
    let cpu_us = of_cgroup("cpu.stat").and_then(|text| cpu_us(&text));
    let cgroup_bytes = of_cgroup("memory.current").and_then(|text| text.trim().parse().ok());
    Ok(Some(ProcessUsage {
        cpu_us: match cpu_us {
            Some(cpu_us) => cpu_us,
            None => ticks_us(&stat)?,
        },
        resident_bytes: resident(&statm)?,
        cgroup_bytes,
    }))
}

/// None of a process that is gone; its files then fail in one of two ways (proc(5)).
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is none"))
}

fn ticks_us(stat: &str) -> io::Result<u64> {
    let ticks = ProcStat::parse(stat).ok_or_else(|| odd("stat"))?.cpu_ticks;
    Ok(ticks.saturating_mul(MICROS) / constant(SysconfVar::CLK_TCK)?)
}

/// A number that the system has and that is more than zero.
fn constant(which: SysconfVar) -> io::Result<u64> {
    let number = sysconf(which)?.and_then(|n| u64::try_from(n).ok());
    number.filter(|n| *n > 0).ok_or_else(|| odd("sysconf"))
}

/// The second field of `statm`, in pages.
fn resident(statm: &str) -> io::Result<u64> {
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.ok_or_else(|| odd("statm"))?.saturating_mul(constant(SysconfVar::PAGE_SIZE)?))
}

fn cpu_us(cpu_stat: &str) -> Option<u64> {
    cpu_stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()
}

/// The directory of the VM's own cgroup. One that is not named after it is shared with others, and
/// says nothing.
fn cgroup_of(vm: VmId, cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = format!("vm-{vm}");
    Path::new(path).components().find(|part| part.as_os_str() == own.as_str())?;
    let mount = mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        (kind.split(' ').next()? == "cgroup2").then(|| mount.split(' ').nth(4)).flatten()
    })?;
    Some(Path::new(mount).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: VmId = VmId([0xab; 16]);

    #[test]
    fn this_process_takes_something_and_one_that_ended_nothing() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let own = ProcessIdentity {
            pid: std::process::id(),
            start_ticks: ProcStat::parse(&stat).unwrap().start_ticks,
            host_boot_id: boot.trim().to_owned(),
        };
        let usage = super::usage(VM, &own).unwrap().unwrap();
        assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
        assert_eq!(usage.cgroup_bytes, None, "its cgroup is not the VM's");
        let other = ProcessIdentity { start_ticks: own.start_ticks + 1, ..own.clone() };
        assert_eq!(super::usage(VM, &other).unwrap(), None);
        let nobody = ProcessIdentity { pid: u32::MAX, ..own };
        assert_eq!(super::usage(VM, &nobody).unwrap(), None);
    }

    #[test]
    fn files_of_the_kernel_are_understood() {
        assert_eq!(cpu_us("usage_usec 1234\nuser_usec 1000\n"), Some(1234));
        assert_eq!(cpu_us("nr_periods 0\n"), None);
        let page = constant(SysconfVar::PAGE_SIZE).unwrap();
        assert_eq!(resident("1000 25 10 1 0 5 0\n").unwrap(), 25 * page);
        assert!(resident("1000").is_err());
        let stat = "1 (x) S 1 1 1 0 -1 0 1 0 0 0 150 50 0 0 20 0 1 0 9876 1 2 3\n";
        let per_second = constant(SysconfVar::CLK_TCK).unwrap();
        assert_eq!(ticks_us(stat).unwrap(), 200 * MICROS / per_second);
    }

    #[test]
    fn a_cgroup_counts_when_it_is_the_vms() {
        let mounts = "\
            30 23 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let own = format!("1:name=systemd:/x\n0::/banger-1000/vm-{VM}\n");
        let dir = format!("/sys/fs/cgroup/unified/banger-1000/vm-{VM}");
        assert_eq!(cgroup_of(VM, &own, mounts), Some(dir.into()));
        assert_eq!(cgroup_of(VmId([1; 16]), &own, mounts), None);
        assert_eq!(cgroup_of(VM, "0::/system.slice\n", mounts), None);
        assert_eq!(cgroup_of(VM, &own, ""), None);
    }
}
