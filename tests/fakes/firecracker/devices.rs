//! Files and taps behind devices, opened when they are configured, with the real one's words for
//! what cannot be opened.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::libc;

use crate::bodies::{Drive, Network};

const IFNAMSIZ: usize = 16;

nix::ioctl_write_int!(tun_set_iff, b'T', 202);

/// How many bytes the drive has.
pub(crate) fn open_drive(drive: &Drive) -> Result<u64, String> {
    let Some(path) = drive.path_on_host.as_deref() else {
        return Err("Unable to create the virtio block device: Invalid block config.".into());
    };
    let writable = !drive.is_read_only.unwrap_or(false);
    open_disk(path, writable)
}

pub(crate) fn open_disk(path: &Path, writable: bool) -> Result<u64, String> {
    use std::io::{Seek, SeekFrom};
    let size = File::options()
        .read(true)
        .write(writable)
        .open(path)
        .and_then(|mut file| file.seek(SeekFrom::End(0)));
    size.map_err(|error| {
        format!(
            "Unable to create the virtio block device: Virtio backend error: Error manipulating \
             the backing file: {error} {}",
            path.display()
        )
    })
}

/// Takes the tap; it is this process's until it ends.
pub(crate) fn open_tap(network: &Network) -> Result<File, String> {
    let name = network.host_dev_name.as_str();
    let failed =
        |why: String| format!("Could not create the network device: Open tap device failed: {why}");
    if name.is_empty() || name.len() >= IFNAMSIZ {
        return Err(failed("Invalid interface name".into()));
    }
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let tun = tun.map_err(|error| failed(format!("Couldn't open /dev/net/tun: {error}")))?;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = u16::try_from(flags).expect("flags are short").to_ne_bytes();
    request[IFNAMSIZ..IFNAMSIZ + 2].copy_from_slice(&flags);
    let request_at = request.as_ptr() as libc::c_ulong;
    #[allow(unsafe_code, reason = "an ioctl")]
    // SAFETY: the kernel reads and writes a `struct ifreq`, which is as long as `request`.
    let taken = unsafe { tun_set_iff(tun.as_raw_fd(), request_at) };
    match taken {
        Ok(_) => Ok(tun),
        Err(errno) => Err(failed(format!(
            "Error while creating ifreq structure: {}. Invalid TUN/TAP Backend provided by {name}. \
             Check our documentation on setting up the network devices.",
            std::io::Error::from(errno)
        ))),
    }
}
