//! One cgroup (v2) a VM: `<root>/banger-<owner uid>/vm-<id>`. It holds everything the VMM started,
//! and its name finds the VM again; its limits are the VMM's walls.
//!
//! Directories are made when a VMM is started and removed with it, the parent too when it is
//! empty, so that a host without VMs looks as before. Where no cgroup v2 is mounted or writable
//! there are none, and VMMs are found by their command lines.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::XattrFlags;

use super::config::Config;
use super::error::Trouble;
use super::process::{Held, hold};
use crate::model::{Code, VmId};
use crate::wire::helper::WireLimits;

/// `CGROUP2_SUPER_MAGIC`, linux/magic.h.
const MAGIC: u64 = 0x6367_7270;
const SIGKILL: i32 = 9;

/// Without them a VMM runs, but without its walls.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// cpu.max counts microseconds of each period, the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// On each cgroup: the state directory of the helper that made it, for an owner may have two daemons.
const MARK: &str = "trusted.banger";

#[derive(Debug)]
pub(super) struct Cgroups {
    base: PathBuf,
    mark: Vec<u8>,
    warned: AtomicBool,
}

impl Cgroups {
    /// Below the configured root, else where cgroup v2 is mounted.
    pub(super) fn locate(config: &Config) -> Option<Self> {
        let root = match &config.cgroup_root {
            Some(root) => root.clone(),
            None => mounted(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)?,
        };
        let usable =
            is_cgroup2(&root) && rustix::fs::access(&root, rustix::fs::Access::WRITE_OK).is_ok();
        if !usable {
            tracing::warn!(root = %root.display(), "no writable cgroup v2: VMMs run without");
            return None;
        }
        let base = root.join(format!("banger-{}", config.owner_uid));
        let mark = config.state_dir.as_os_str().as_encoded_bytes().to_vec();
        Some(Self { base, mark, warned: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.base
    }

    fn dir(&self, vm: VmId) -> PathBuf {
        self.base.join(format!("vm-{vm}"))
    }

    /// Makes the VM's directory, with limits; the file through which a process joins it.
    pub(super) fn ensure(
        &self,
        vm: VmId,
        limits: Option<&WireLimits>,
    ) -> Result<std::fs::File, Trouble> {
        let dir = self.dir(vm);
        let failed = |error| Trouble::io("make cgroup", dir.display().to_string(), error);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let marked = rustix::fs::setxattr(&dir, MARK, &self.mark, XattrFlags::empty());
        if let Err(error) = marked {
            // It is then nobody's to collect, if it should ever be left behind.
            tracing::debug!(dir = %dir.display(), %error, "cgroup not marked");
        }
        if let Some(limits) = limits {
            self.limit(&dir, limits)?;
        }
        let join = std::fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        join.map_err(failed)
    }

    /// A controller that the host keeps elsewhere is no reason not to start.
    fn limit(&self, dir: &Path, limits: &WireLimits) -> Result<(), Trouble> {
        // From the top: a controller reaches a directory by all those above it.
        for above in [self.base.parent(), Some(self.base.as_path())].into_iter().flatten() {
            for controller in CONTROLLERS {
                let file = above.join("cgroup.subtree_control");
                if let Err(error) = put(&file, &format!("+{controller}")) {
                    tracing::debug!(file = %file.display(), controller, %error, "not enabled");
                }
            }
        }
        let cpu = u64::from(limits.cpus).saturating_mul(CPU_PERIOD_US);
        let values = [
            ("memory.max", limits.memory_bytes.to_string()),
            ("cpu.max", format!("{cpu} {CPU_PERIOD_US}")),
            ("pids.max", limits.tasks.to_string()),
        ];
        let mut missing = vec![];
        for (name, value) in values {
            let file = dir.join(name);
            match put(&file, &value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name),
                Err(error) => {
                    return Err(Trouble::io("limit", file.display().to_string(), error));
                }
            }
        }
        if !missing.is_empty() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(?missing, "cgroups lack controllers: VMMs run without these limits");
        }
        Ok(())
    }

    /// All that there are, and whether each carries our mark.
    pub(super) fn list(&self) -> Vec<(VmId, bool)> {
        let Ok(entries) = std::fs::read_dir(&self.base) else { return vec![] };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let vms = names.filter_map(|name| name.strip_prefix("vm-")?.parse().ok());
        vms.map(|vm| (vm, self.is_marked(vm))).collect()
    }

    fn is_marked(&self, vm: VmId) -> bool {
        let mut value = vec![0; self.mark.len() + 1];
        let read = rustix::fs::getxattr(self.dir(vm), MARK, value.as_mut_slice());
        read.is_ok_and(|length| value.get(..length) == Some(self.mark.as_slice()))
    }

    /// Zombies are not among them.
    pub(super) fn pids(&self, vm: VmId) -> Vec<u32> {
        let text = std::fs::read_to_string(self.dir(vm).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills what is in the VM's cgroup, waits for the end of all of it and removes the cgroup.
    pub(super) async fn clear(&self, vm: VmId, limit: Duration) -> Result<(), Trouble> {
        let cleared = tokio::time::timeout(limit, self.clear_fully(vm)).await;
        cleared.unwrap_or_else(|_| {
            let why = format!("its processes did not end within {limit:?}");
            let object = self.dir(vm).display().to_string();
            Err(Trouble::new(Code::Deadline, "clear cgroup", object).because(why))
        })
    }

    async fn clear_fully(&self, vm: VmId) -> Result<(), Trouble> {
        let dir = self.dir(vm);
        let mut pause = Duration::from_micros(200);
        loop {
            match std::fs::remove_dir(&dir) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => {
                    return Err(Trouble::io("remove cgroup", dir.display().to_string(), error));
                }
            }
            let held: Vec<Held> = self.pids(vm).into_iter().filter_map(hold).collect();
            // One write kills all, newborns included (Linux 5.14); before that one by one.
            if std::fs::write(dir.join("cgroup.kill"), "1").is_err() {
                for process in &held {
                    process.signal(SIGKILL)?;
                }
            }
            if held.is_empty() {
                // Dead, but not yet out of the cgroup: the kernel tells nobody when that is.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            for process in held {
                process.ended(Duration::MAX).await?;
            }
        }
        // Refused while another VM has a cgroup there.
        drop(std::fs::remove_dir(&self.base));
        Ok(())
    }

    pub(super) fn exists(&self, vm: VmId) -> bool {
        self.dir(vm).exists()
    }
}

/// Never makes the file.
fn put(file: &Path, value: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|t| t == MAGIC))
}

/// The mount point of cgroup v2: its line's file system type comes after ` - ` (proc(5)).
fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next()? != "cgroup2" {
            return None;
        }
        mount.split(' ').nth(4).map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_found() {
        let hybrid = "\
            30 23 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mounted("30 23 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"), None);
        assert!(!is_cgroup2(Path::new("/")));
        let mut config = crate::helper::config::tests::config();
        config.cgroup_root = Some("/tmp".into());
        assert!(Cgroups::locate(&config).is_none());
    }
}
