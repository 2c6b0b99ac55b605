//! Taps: made by ioctl, the kernel offers no other way; attached and marked over netlink.
//!
//! The flags are those a VMM opens the tap with (no IFF_MULTI_QUEUE). A tap with our prefix and
//! no mark is half-made: the ioctls are done again. A marked one is whole, and may be open in a
//! VMM, where they would fail.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::libc;

use super::error::Trouble;
use super::link::{Link, Links};
use crate::model::Code;

const DEVICE: &str = "/dev/net/tun";

nix::ioctl_write_int!(tun_set_iff, b'T', 202);
nix::ioctl_write_int!(tun_set_persist, b'T', 203);
nix::ioctl_write_int!(tun_set_owner, b'T', 204);

pub(super) async fn ensure(
    links: &Links,
    bridge: &str,
    name: &str,
    owner: u32,
) -> Result<(), Trouble> {
    open_to_owner()?;
    match links.find(name).await? {
        // The last start may have given it to a jail's user. Whoever still has it open keeps it.
        Some(link) if link.is_our_tap() => match give(&link, owner) {
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                return Err(Trouble::io("take back tap", name, error));
            }
            _ => {}
        },
        Some(link) if !link.is_tap() || link.alias.is_some() => {
            let why = "a link of that name exists that banger did not make";
            return Err(Trouble::new(Code::Conflict, "use tap", name).because(why));
        }
        _ => create(name, owner).map_err(|error| Trouble::io("create tap", name, error))?,
    }
    links.attach_tap(bridge, name).await
}

/// Makes a tap of ours that user's, and nobody else's.
pub(super) async fn give_to(links: &Links, name: &str, uid: u32) -> Result<(), Trouble> {
    let link = links.find(name).await?.filter(Link::is_our_tap);
    let link = link.ok_or_else(|| Trouble::new(Code::NotFound, "look up tap", name))?;
    give(&link, uid).map_err(|error| {
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        let trouble = Trouble::io("give to the jail tap", name, error);
        if busy { Trouble { code: Code::Conflict, ..trouble } } else { trouble }
    })
}

fn give(link: &Link, uid: u32) -> std::io::Result<()> {
    if link.owner == Some(uid) { Ok(()) } else { create(&link.name, uid) }
}

pub(super) async fn remove(links: &Links, name: &str) -> Result<(), Trouble> {
    match links.find(name).await? {
        None => Ok(()),
        Some(link) if link.is_tap() && (link.is_our_tap() || link.alias.is_none()) => {
            links.delete("delete tap", &link).await
        }
        Some(_) => {
            let why = "banger did not make that link";
            Err(Trouble::new(Code::Conflict, "delete tap", name).because(why))
        }
    }
}

/// The kernel checks who opens which tap; the device itself is open to all wherever udev runs
/// (its rule says 0666), and without udev it is made so here.
fn open_to_owner() -> Result<(), Trouble> {
    let failed = |error| Trouble::io("open to the owner", DEVICE, error);
    match std::fs::metadata(DEVICE) {
        Ok(meta) if meta.mode() & 0o006 == 0o006 => Ok(()),
        Ok(_) => {
            tracing::info!(path = DEVICE, "opened to all users, as udev does");
            let mode = std::fs::Permissions::from_mode(0o666);
            std::fs::set_permissions(DEVICE, mode).map_err(failed)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_device().map_err(|error| Trouble::io("make", DEVICE, error))
        }
        Err(error) => Err(failed(error)),
    }
}

fn make_device() -> std::io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    if let Some(dir) = Path::new(DEVICE).parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Major and minor are fixed: misc, 200 (admin-guide/devices.txt).
    mknod(DEVICE, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200))?;
    std::fs::set_permissions(DEVICE, std::fs::Permissions::from_mode(0o666))
}

/// Also what changes the owner of one that is there.
fn create(name: &str, owner: u32) -> std::io::Result<()> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let device: File = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
    let fd = device.as_raw_fd();
    #[allow(unsafe_code, reason = "tun devices are made by ioctl only")]
    // SAFETY: `device` is open and `request` outlives the call that reads it; the other two take
    // plain integers.
    unsafe {
        tun_set_iff(fd, &raw const request as libc::c_ulong)?;
        tun_set_owner(fd, libc::c_ulong::from(owner))?;
        tun_set_persist(fd, 1)?;
    }
    Ok(())
}
