//! One cgroup (v2) a VM: `<root>/banger-<owner uid>/vm-<id>`. It holds everything the VMM started,
//! and its name finds the VM again.
//!
//! Directories are made when a VMM is started and removed with it, the parent too when it is
//! empty, so that a host without VMs looks as before. Where no cgroup v2 is mounted or writable
//! there are none, and VMMs are found by their command lines.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Trouble;
use super::process::{Held, hold};
use crate::model::{Code, VmId};

/// `CGROUP2_SUPER_MAGIC`, linux/magic.h.
const MAGIC: u64 = 0x6367_7270;
const SIGKILL: i32 = 9;

#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    base: PathBuf,
}

impl Cgroups {
    /// Below `root`, else where cgroup v2 is mounted.
    pub(super) fn locate(root: Option<&Path>, owner_uid: u32) -> Option<Self> {
        let root = match root {
            Some(root) => root.to_owned(),
            None => mounted(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)?,
        };
        let usable =
            is_cgroup2(&root) && rustix::fs::access(&root, rustix::fs::Access::WRITE_OK).is_ok();
        if !usable {
            tracing::warn!(root = %root.display(), "no writable cgroup v2: VMMs run without");
            return None;
        }
        Some(Self { base: root.join(format!("banger-{owner_uid}")) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.base
    }

    fn dir(&self, vm: VmId) -> PathBuf {
        self.base.join(format!("vm-{vm}"))
    }

    /// Makes the VM's directory; the file through which a process joins it.
    pub(super) fn ensure(&self, vm: VmId) -> Result<std::fs::File, Trouble> {
        let dir = self.dir(vm);
        let failed = |error| Trouble::io("make cgroup", dir.display().to_string(), error);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let join = std::fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        join.map_err(failed)
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
        assert!(Cgroups::locate(Some(Path::new("/tmp")), 1).is_none());
    }
}
