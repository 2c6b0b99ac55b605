//! File systems, in order: those of the kernel, the root, the work disk. The new root is put
//! together under `/newroot` and becomes `/` later.
//!
//! What must not be done here: nothing that writes to a base. It is mounted read-only and
//! without replaying its journal, for other guests run from the same file.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use banger_agent::contract::config::RootLayout;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

use super::boot::DEVICE_WAIT;
use super::disks::{Content, Disk, Disks};
use super::{grow, skeleton};
use crate::error::{Context as _, Result};
use crate::init::Storage;
use crate::log;

pub(super) const NEW_ROOT: &str = "/newroot";
const BASE: &str = "/base";
const OVERLAY: &str = "/overlay";
const WORK: &str = "/work";
/// Of the kernel, moved into the new root with all that is mounted below them.
pub(super) const KERNEL_MOUNTS: [&str; 4] = ["proc", "sys", "dev", "run"];

pub(super) fn early() -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let dev = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    kernel_fs("proc", "/proc", plain, "")?;
    kernel_fs("sysfs", "/sys", plain, "")?;
    kernel_fs("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755")?;
    kernel_fs("devpts", "/dev/pts", dev, "gid=5,mode=0620,ptmxmode=0666")?;
    kernel_fs("tmpfs", "/dev/shm", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    kernel_fs("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755")?;
    for (link, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        // The kernel may have made them; then they are right.
        drop(std::os::unix::fs::symlink(format!("/proc/self/{target}"), format!("/dev/{link}")));
    }
    Ok(())
}

/// Where containers get their limits. An init of the image mounts it as it likes to have it; where
/// there is none, this one does. A kernel without it is one without containers, and boots.
pub(super) fn control_groups() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) =
        mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), flags, None::<&str>)
    {
        log::line(format_args!("no control groups: {}", errno.desc()));
    }
}

fn kernel_fs(kind: &str, at: &str, flags: MsFlags, data: &str) -> Result<()> {
    fs::create_dir_all(at).context(|| format!("make {at}"))?;
    mount(Some(kind), at, Some(kind), flags, Some(data)).context(|| format!("mount {kind} on {at}"))
}

pub(super) fn root(layout: &RootLayout, disks: &mut Disks) -> Result<Storage> {
    let storage = match layout {
        RootLayout::Overlay { base, overlay } => {
            let base = disks.wait_for_base(DEVICE_WAIT, base)?;
            let overlay = disks.wait_for_ext4(DEVICE_WAIT, overlay, "overlay")?;
            overlay_root(&base, &overlay)?
        }
        RootLayout::Plain { disk } => {
            let disk = disks.wait_for_ext4(DEVICE_WAIT, disk, "root")?;
            mount_ext4(&disk, NEW_ROOT)?;
            Storage::default()
        }
    };
    for dir in KERNEL_MOUNTS.iter().chain(&["tmp", "root", "etc"]) {
        let path = Path::new(NEW_ROOT).join(dir);
        if fs::symlink_metadata(&path).is_err() {
            fs::create_dir(&path).context(|| format!("make {}", path.display()))?;
            let mode = if *dir == "tmp" { 0o1777 } else { 0o755 };
            fs::set_permissions(&path, PermissionsExt::from_mode(mode))
                .context(|| format!("set mode of {dir}"))?;
        }
    }
    Ok(storage)
}

fn overlay_root(base: &Disk, overlay: &Disk) -> Result<Storage> {
    let (kind, options) = match base.content {
        Content::Squashfs => ("squashfs", ""),
        Content::Erofs { .. } => ("erofs", ""),
        _ => ("ext4", "noload"),
    };
    fs::create_dir_all(BASE).context(|| format!("make {BASE}"))?;
    mount(Some(&base.device), BASE, Some(kind), MsFlags::MS_RDONLY, Some(options))
        .context(|| format!("mount base {} as {kind}", base.device.display()))?;
    mount_ext4(overlay, OVERLAY)?;
    for dir in ["/overlay/upper", "/overlay/work"] {
        fs::create_dir_all(dir).context(|| format!("make {dir}"))?;
    }
    fs::create_dir_all(NEW_ROOT).context(|| format!("make {NEW_ROOT}"))?;
    let options = "lowerdir=/base,upperdir=/overlay/upper,workdir=/overlay/work";
    mount(Some("overlay"), NEW_ROOT, Some("overlay"), MsFlags::empty(), Some(options))
        .context(|| "mount the overlay".into())?;
    // The overlay holds both by itself; this descriptor is how the upper file system is still
    // reached, to leave it clean at the end.
    let upper = open(OVERLAY, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .context(|| format!("open {OVERLAY}"))?;
    for hidden in [BASE, OVERLAY] {
        umount2(hidden, MntFlags::MNT_DETACH).context(|| format!("detach {hidden}"))?;
    }
    Ok(Storage::with_upper(upper))
}

/// The work disk becomes `/root`. An empty one first gets what the image has there.
pub(super) fn work(uuid: &[u8; 16], disks: &mut Disks) -> Result<()> {
    let disk = disks.wait_for_ext4(DEVICE_WAIT, uuid, "work")?;
    mount_ext4(&disk, WORK)?;
    let home = Path::new(NEW_ROOT).join("root");
    if skeleton::is_fresh(Path::new(WORK)) {
        if let Err(error) = skeleton::copy(&home, Path::new(WORK)) {
            log::line(format_args!("work disk: the image's /root was not copied whole: {error}"));
        }
        fs::set_permissions(WORK, PermissionsExt::from_mode(0o700))
            .context(|| "set mode of the work disk".into())?;
    }
    mount(Some(WORK), &home, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context(|| "move the work disk".into())
}

/// Keeps the kernel from zeroing inode tables in the background. Where nothing was written, a disk
/// reads as zero already, and writing that down would take room and time on the host.
const NO_ZEROING: &str = "noinit_itable";

fn mount_ext4(disk: &Disk, at: &str) -> Result<()> {
    fs::create_dir_all(at).context(|| format!("make {at}"))?;
    // Growing with that option would zero the new tables there and then: it comes afterwards.
    let grows = grow::is_needed(disk);
    let option = if grows { None } else { Some(NO_ZEROING) };
    mount(Some(&disk.device), at, Some("ext4"), MsFlags::MS_NOATIME, option)
        .context(|| format!("mount {} on {at}", disk.device.display()))?;
    if grows {
        grow::to_device_size(disk, Path::new(at));
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOATIME;
        mount(None::<&str>, at, None::<&str>, flags, Some(NO_ZEROING))
            .context(|| format!("mount {at} again"))?;
    }
    Ok(())
}

/// The directory of a mounted file system, to flush it as a whole.
pub(super) fn open_dir(path: &str) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
