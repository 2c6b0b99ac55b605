//! Root disks that device-mapper makes: an image with zeros behind it, and over it a snapshot that
//! keeps what is written in a file of the VM's own.
//!
//! ```text
//! image ── loop, read-only ─┐
//! zeros ────────────────────┴─ NAME-base ─┐
//! VM's file ── loop ──────────────────────┴─ NAME ── /dev/banger/<vm>, the owner's
//! ```
//!
//! Names carry owner, state directory and VM, so that what a crash left is found and nobody else's
//! is. The loops go by themselves with whoever holds them, which are these devices alone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::config::Config;
use super::dm::{Device, DeviceMapper, Target};
use super::error::Trouble;
use super::loopdev;
use crate::model::{Code, VmId};

const SECTOR: u64 = 512;
/// Sectors that are copied together: a block of the guest's file system.
const CHUNK: u64 = 8;
/// How long a device may stay in use after its VMM has ended: udev looks at it, the kernel writes
/// back what it still holds.
const BUSY_LIMIT: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

pub(super) const DEVICES: &str = "/dev/banger";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPlan {
    pub vm: VmId,
    /// Both below the state directory.
    pub base: PathBuf,
    pub changes: PathBuf,
    /// Of the whole device.
    pub bytes: u64,
}

pub(super) fn path(vm: VmId) -> PathBuf {
    Path::new(DEVICES).join(vm.to_string())
}

/// The device, the one there is if there is one.
pub(super) fn ensure(config: &Config, plan: &SnapshotPlan) -> Result<PathBuf, Trouble> {
    let failed = |error| Trouble::io("make root disk of VM", plan.vm.to_string(), error);
    let dm = open()?;
    let name = name(config, plan.vm);
    let device = match dm.find(&name).map_err(failed)? {
        Some(device) => device,
        None => {
            remove_mapped(&dm, &name).map_err(failed)?; // what an interrupted one left
            make(config, &dm, &name, plan)?
        }
    };
    node(config, plan.vm, device).map_err(failed)
}

fn make(
    config: &Config,
    dm: &DeviceMapper,
    name: &str,
    plan: &SnapshotPlan,
) -> Result<Device, Trouble> {
    let failed = |error| Trouble::io("make root disk of VM", plan.vm.to_string(), error);
    let (base, base_bytes) = loopdev::lend(config, &plan.base, true)?;
    let (changes, _) = loopdev::lend(config, &plan.changes, false)?;
    let (all, base_sectors) = (plan.bytes / SECTOR, base_bytes / SECTOR);
    if all % CHUNK != 0 || all < base_sectors {
        let why = format!("{} bytes are not a disk over {base_bytes}", plan.bytes);
        return Err(
            Trouble::new(Code::Invalid, "make root disk of VM", plan.vm.to_string()).because(why)
        );
    }
    let mut table = vec![Target {
        start: 0,
        sectors: base_sectors,
        kind: "linear",
        arguments: format!("{} 0", numbers(&base).map_err(failed)?),
    }];
    if all > base_sectors {
        let (start, sectors) = (base_sectors, all - base_sectors);
        table.push(Target { start, sectors, kind: "zero", arguments: String::new() });
    }
    let origin = dm.create(&origin(name), true, &table).map_err(failed)?;
    let changes = numbers(&changes).map_err(failed)?;
    let arguments = format!("{}:{} {changes} P {CHUNK}", origin.major, origin.minor);
    let table = [Target { start: 0, sectors: all, kind: "snapshot", arguments }];
    dm.create(name, false, &table).map_err(|error| {
        drop(remove_mapped(dm, name));
        failed(error)
    })
    // Here the loops' last descriptors but the devices' own are closed.
}

/// Without one there is nothing to do.
pub(super) fn remove(config: &Config, vm: VmId) -> Result<(), Trouble> {
    let failed = |error| Trouble::io("remove root disk of VM", vm.to_string(), error);
    match fs::remove_file(path(vm)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    match open() {
        Ok(dm) => remove_mapped(&dm, &name(config, vm)).map_err(failed),
        // A host without device-mapper has none.
        Err(trouble) if trouble.code == Code::NotFound => Ok(()),
        Err(trouble) => Err(trouble),
    }
}

/// VMs that have one, whole or half. An error of the code `not-found`: this host cannot make any.
pub(super) fn list(config: &Config) -> Result<Vec<VmId>, Trouble> {
    let failed = |error| Trouble::io("list", "device-mapper devices", error);
    let dm = open()?;
    for target in ["linear", "zero", "snapshot"] {
        if !dm.has_target(target).map_err(failed)? {
            return Err(Trouble::new(Code::NotFound, "use device-mapper target", target));
        }
    }
    let prefix = prefix(config);
    let of = |name: &String| {
        let id = name.strip_prefix(&prefix)?;
        id.strip_suffix(ORIGIN).unwrap_or(id).parse().ok()
    };
    let mut vms: Vec<VmId> = dm.names().map_err(failed)?.iter().filter_map(of).collect();
    vms.sort_unstable();
    vms.dedup();
    Ok(vms)
}

fn open() -> Result<DeviceMapper, Trouble> {
    DeviceMapper::open().map_err(|error| Trouble::io("open", "device-mapper's control", error))
}

const ORIGIN: &str = "-base";

fn origin(name: &str) -> String {
    format!("{name}{ORIGIN}")
}

fn name(config: &Config, vm: VmId) -> String {
    format!("{}{vm}", prefix(config))
}

/// An owner may have two daemons; each has a state directory of its own.
fn prefix(config: &Config) -> String {
    let path = config.state_dir.as_os_str().as_encoded_bytes();
    let hash = path
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("banger-{}-{hash:08x}-", config.owner_uid)
}

/// On a thread of its own: nobody tells when a device is no longer in use.
#[allow(clippy::disallowed_methods, reason = "it runs where blocking work does")]
fn remove_mapped(dm: &DeviceMapper, name: &str) -> io::Result<()> {
    for name in [name.to_owned(), origin(name)] {
        let give_up = Instant::now() + BUSY_LIMIT;
        loop {
            match dm.remove(&name) {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < give_up =>
                {
                    std::thread::sleep(BUSY_PAUSE);
                }
                done => break done?,
            }
        }
    }
    Ok(())
}

fn numbers(device: &File) -> io::Result<String> {
    let rdev = device.metadata()?.rdev();
    Ok(format!("{}:{}", nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev)))
}

/// A node of our own, so that nobody waits for udev and the owner may open it.
fn node(config: &Config, vm: VmId, device: Device) -> io::Result<PathBuf> {
    match DirBuilder::new().mode(0o711).create(DEVICES) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (path, number) = (path(vm), makedev(device.major.into(), device.minor.into()));
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.file_type().is_block_device() && meta.rdev() == number => {}
        Ok(_) => {
            fs::remove_file(&path)?;
            mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number)?;
        }
        Err(_) => mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number)?,
    }
    std::os::unix::fs::chown(&path, Some(config.owner_uid), Some(config.owner_gid))?;
    Ok(path)
}
