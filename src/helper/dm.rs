//! Device-mapper by ioctl: what `dmsetup` does, without waiting for a udev that may not be there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

const CONTROL: &str = "/dev/mapper/control";
/// Bytes of a request, its head included: tables and lists are short.
const ROOM: usize = 64 << 10;
const HEAD: usize = 312;
const SPEC: usize = 40;

const READ_ONLY: u32 = 1;
const SUSPENDED: u32 = 1 << 1;
const ACTIVE: u32 = 1 << 5;
/// Where a host has udev, it is told to leave the device alone: what is on it is a guest's.
const UDEV_HANDS_OFF: u32 = 0x4f << 16;

/// The request's number in linux/dm-ioctl.h.
#[derive(Clone, Copy, Debug)]
enum Command {
    List = 2,
    Create = 3,
    Remove = 4,
    Suspend = 6,
    Status = 7,
    Load = 9,
    TargetVersion = 17,
}

// `_IOWR(0xfd, n, struct dm_ioctl)`, one for each command.
const fn code(command: Command) -> libc_ioctl::Request {
    ((3 << 30) | (HEAD << 16) | (0xfd << 8) | command as usize) as libc_ioctl::Request
}

mod libc_ioctl {
    #[cfg(target_env = "musl")]
    pub(super) type Request = std::ffi::c_int;
    #[cfg(not(target_env = "musl"))]
    pub(super) type Request = std::ffi::c_ulong;
}

/// One line of a table: sectors, kind, its own arguments.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) start: u64,
    pub(super) sectors: u64,
    pub(super) kind: &'static str,
    pub(super) arguments: String,
}

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

#[derive(Debug)]
pub(super) struct DeviceMapper {
    control: File,
}

impl DeviceMapper {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { control: OpenOptions::new().read(true).write(true).open(CONTROL)? })
    }

    /// Whether the kernel has this kind of target; its module is loaded if need be.
    pub(super) fn has_target(&self, kind: &'static str) -> io::Result<bool> {
        match self.call(Command::TargetVersion, kind, 0, 0, &[]) {
            // A kernel before 5.4 cannot be asked; it says when a table is loaded.
            Ok(_) | Err(Errno::ENOTTY) => Ok(true),
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENXIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Names of all devices.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let reply = self.call(Command::List, "", 0, 0, &[])?;
        let mut names = vec![];
        // Entries are a device number, the way to the next one and a name.
        let mut at = u32_at(&reply, 16) as usize;
        while at + 12 < reply.len() && u64_at(&reply, at) != 0 {
            names.push(text(&reply[at + 12..]));
            match u32_at(&reply, at + 8) as usize {
                0 => break,
                next => at += next,
            }
        }
        Ok(names)
    }

    /// The device of this name, if it is there and has a table that works.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<Device>> {
        match self.call(Command::Status, name, 0, 0, &[]) {
            Ok(reply) => {
                let flags = u32_at(&reply, 28);
                let works = flags & ACTIVE != 0 && flags & SUSPENDED == 0;
                Ok(works.then(|| device(u64_at(&reply, 40))))
            }
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a device with this table. One that cannot be finished is not left behind.
    pub(super) fn create(
        &self,
        name: &str,
        read_only: bool,
        table: &[Target],
    ) -> io::Result<Device> {
        let reply = self.call(Command::Create, name, 0, 0, &[])?;
        let flags = if read_only { READ_ONLY } else { 0 };
        let made = self
            .call(Command::Load, name, flags, 0, table)
            .and_then(|_| self.call(Command::Suspend, name, 0, UDEV_HANDS_OFF, &[]));
        match made {
            Ok(_) => Ok(device(u64_at(&reply, 40))),
            Err(error) => {
                drop(self.remove(name));
                Err(error.into())
            }
        }
    }

    /// Removing what is not there succeeds; one that is in use is `ResourceBusy`.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match self.call(Command::Remove, name, 0, UDEV_HANDS_OFF, &[]) {
            Ok(_) | Err(Errno::ENXIO) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn call(
        &self,
        command: Command,
        name: &str,
        flags: u32,
        event: u32,
        table: &[Target],
    ) -> Result<Vec<u8>, Errno> {
        let mut buffer = request(name, flags, event, table).ok_or(Errno::E2BIG)?;
        #[allow(unsafe_code, reason = "device-mapper is spoken to by ioctl only")]
        // SAFETY: the control device is open; the buffer is as long as its head says, and the
        // kernel writes no further than that.
        let result = unsafe {
            nix::libc::ioctl(self.control.as_raw_fd(), code(command), buffer.as_mut_ptr())
        };
        Errno::result(result)?;
        Ok(buffer)
    }
}

/// `struct dm_ioctl`, and a `struct dm_target_spec` with its arguments for each target.
fn request(name: &str, flags: u32, event: u32, table: &[Target]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; ROOM];
    let mut put = |at: usize, bytes: &[u8]| {
        buffer.get_mut(at..at + bytes.len()).map(|to| to.copy_from_slice(bytes))
    };
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
    put(0, &4_u32.to_ne_bytes())?; // the interface's version, 4.0.0
    put(12, &number(ROOM))?;
    put(16, &number(HEAD))?;
    put(20, &number(table.len()))?;
    put(28, &flags.to_ne_bytes())?;
    put(32, &event.to_ne_bytes())?;
    if name.len() > 127 {
        return None;
    }
    put(48, name.as_bytes())?;
    let mut at = HEAD;
    for target in table {
        let next = (SPEC + target.arguments.len() + 1).next_multiple_of(8);
        put(at, &target.start.to_ne_bytes())?;
        put(at + 8, &target.sectors.to_ne_bytes())?;
        put(at + 20, &number(next))?;
        put(at + 24, target.kind.as_bytes())?;
        put(at + SPEC, target.arguments.as_bytes())?;
        at += next;
    }
    (at < ROOM).then_some(buffer)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// As the kernel packs it (`huge_encode_dev`).
fn device(dev: u64) -> Device {
    let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let minor = (dev & 0xff) | ((dev >> 12) & 0xf_ff00);
    Device { major: part((dev >> 8) & 0xfff), minor: part(minor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let target = Target { start: 0, sectors: 8, kind: "linear", arguments: "7:1 0".to_owned() };
        let zero = Target { start: 8, sectors: 16, kind: "zero", arguments: String::new() };
        let bytes = request("name", READ_ONLY, 0, &[target, zero]).unwrap();
        assert_eq!(bytes.len(), ROOM);
        assert_eq!((u32_at(&bytes, 0), u32_at(&bytes, 12)), (4, 64 << 10));
        assert_eq!((u32_at(&bytes, 20), u32_at(&bytes, 28)), (2, 1));
        assert_eq!(text(&bytes[48..]), "name");
        assert_eq!((u64_at(&bytes, HEAD + 8), text(&bytes[HEAD + SPEC..])), (8, "7:1 0".into()));
        let second = HEAD + u32_at(&bytes, HEAD + 20) as usize;
        assert_eq!((u64_at(&bytes, second), text(&bytes[second + 24..])), (8, "zero".into()));
        assert!(request(&"x".repeat(128), 0, 0, &[]).is_none());
    }

    #[test]
    fn device_numbers_are_unpacked() {
        assert_eq!(device(0xfd07), Device { major: 253, minor: 7 });
        assert_eq!(device(0xfd01 | (1 << 20)), Device { major: 253, minor: 257 });
    }
}
