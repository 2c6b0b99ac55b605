//! Loop devices over files of the owner below the state directory.
//!
//! The file must be the owner's, or one that a VM in a jail was given.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::OFlags;

use super::beneath;
use super::config::Config;
use super::error::Trouble;
use crate::model::Code;
use crate::wire::helper::LoopEntry;

const CONTROL: &str = "/dev/loop-control";
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// A device that was free may be taken before it is configured.
const ATTEMPTS: u32 = 16;

// linux/loop.h: plain numbers, not built by _IO.
nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
nix::ioctl_none_bad!(loop_clr_fd, 0x4C01);
nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, LoopConfig);

/// `struct loop_config`: the file, the block size, `struct loop_info64`, and room to grow.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// The device over that file, the one there is if it is already attached.
pub(super) fn attach(config: &Config, path: &Path, read_only: bool) -> Result<String, Trouble> {
    let object = || path.display().to_string();
    let wanted = |entry: &LoopEntry| Path::new(&entry.path) == path;
    if let Some(entry) = list(config)?.into_iter().find(wanted) {
        if entry.read_only == read_only {
            return Ok(entry.device);
        }
        let why = format!("{} has it with other access", entry.device);
        return Err(Trouble::new(Code::Conflict, "attach loop device to", object()).because(why));
    }
    let flags = if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let (_, device) = free_device(config, path, flags)?;
    Ok(device)
}

/// A device of its own over that file, which goes when nobody has it open any more, and the length
/// of the file.
pub(super) fn lend(config: &Config, path: &Path, read_only: bool) -> Result<(File, u64), Trouble> {
    let flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let (device, _) = free_device(config, path, flags)?;
    let bytes = std::fs::metadata(path)
        .map_err(|error| Trouble::io("look at", path.display().to_string(), error))?
        .len();
    Ok((device, bytes))
}

fn free_device(config: &Config, path: &Path, flags: u32) -> Result<(File, String), Trouble> {
    let read_only = flags & LO_FLAGS_READ_ONLY != 0;
    let file = open_beneath(config, path, read_only)?;
    let failed = |error| Trouble::io("attach loop device to", path.display().to_string(), error);
    let control = File::open(CONTROL).map_err(|error| Trouble::io("open", CONTROL, error))?;
    for _ in 0..ATTEMPTS {
        #[allow(unsafe_code, reason = "loop devices are made by ioctl only")]
        // SAFETY: the device is open; the call takes no argument.
        let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) };
        let device = format!("/dev/loop{}", number.map_err(|error| failed(error.into()))?);
        match configure(&device, &file, flags) {
            Ok(opened) => return Ok((opened, device)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::ErrorKind::ResourceBusy.into()))
}

fn configure(device: &str, file: &File, flags: u32) -> io::Result<File> {
    let read_only = flags & LO_FLAGS_READ_ONLY != 0;
    let target = OpenOptions::new().read(true).write(!read_only).open(device)?;
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    #[allow(unsafe_code, reason = "loop devices are made by ioctl only")]
    // SAFETY: both files are open, and `config` has the kernel's layout and outlives the call.
    unsafe { loop_configure(target.as_raw_fd(), &raw const config) }?;
    Ok(target)
}

fn open_beneath(config: &Config, path: &Path, read_only: bool) -> Result<File, Trouble> {
    let failed = |error| Trouble::io("open", path.display().to_string(), error);
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let file = beneath::open(&config.state_dir, path, access)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || !config.is_owners(meta.uid()) {
        return Err(beneath::refused(path, "not a regular file of the owner"));
    }
    Ok(file)
}

/// Takes the device away from that file; without one there is nothing to do.
pub(super) fn detach(config: &Config, path: &Path) -> Result<(), Trouble> {
    for entry in list(config)?.into_iter().filter(|entry| Path::new(&entry.path) == path) {
        let failed = |error| Trouble::io("detach loop device", entry.device.clone(), error);
        let device = File::open(&entry.device).map_err(failed)?;
        #[allow(unsafe_code, reason = "loop devices are taken away by ioctl only")]
        // SAFETY: the device is open; the call takes no argument.
        match unsafe { loop_clr_fd(device.as_raw_fd()) } {
            Ok(_) | Err(nix::errno::Errno::ENXIO) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}

/// Those of them that are not gone with whoever has them open.
pub(super) fn list_lasting(config: &Config) -> Result<Vec<LoopEntry>, Trouble> {
    let lasts = |entry: &LoopEntry| {
        let name = entry.device.trim_start_matches("/dev/");
        let flag = Path::new("/sys/block").join(name).join("loop/autoclear");
        std::fs::read_to_string(flag).is_ok_and(|flag| flag.trim() == "0")
    };
    Ok(list(config)?.into_iter().filter(lasts).collect())
}

/// Devices whose file lies below the state directory.
pub(super) fn list(config: &Config) -> Result<Vec<LoopEntry>, Trouble> {
    let failed = |error| Trouble::io("list", "/sys/block", error);
    let mut entries = vec![];
    for block in std::fs::read_dir("/sys/block").map_err(failed)? {
        let name = block.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else { continue };
        let dir = Path::new("/sys/block").join(name);
        // Missing while the device is free.
        let Ok(path) = std::fs::read_to_string(dir.join("loop/backing_file")) else { continue };
        let path = path.trim_end_matches('\n');
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        if PathBuf::from(path).starts_with(&config.state_dir) {
            let read_only =
                std::fs::read_to_string(dir.join("ro")).is_ok_and(|ro| ro.trim() == "1");
            let device = format!("/dev/{name}");
            entries.push(LoopEntry { device, path: path.to_owned(), read_only });
        }
    }
    Ok(entries)
}
