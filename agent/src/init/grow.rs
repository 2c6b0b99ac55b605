//! Growing a mounted ext4 to the size of its disk: the host enlarges the disk, the guest's
//! kernel the file system, so no tool has to exist in the image.

use std::fs::File;
use std::path::Path;

use super::disks::{Content, Disk};
use crate::log;

nix::ioctl_write_ptr!(
    /// `EXT4_IOC_RESIZE_FS`, with the new number of blocks.
    resize_fs,
    b'f',
    16,
    u64
);

/// Whether the disk is larger than the file system on it.
pub(super) fn is_needed(disk: &Disk) -> bool {
    let Content::Ext4 { blocks, block_bytes, .. } = disk.content else {
        return false;
    };
    blocks_to_reach(disk.bytes, blocks, block_bytes).is_some()
}

/// A file system that cannot grow is still good: the reason is logged and the boot goes on.
pub(super) fn to_device_size(disk: &Disk, mounted_at: &Path) {
    let Content::Ext4 { blocks, block_bytes, .. } = disk.content else {
        return;
    };
    let Some(fitting) = blocks_to_reach(disk.bytes, blocks, block_bytes) else {
        return;
    };
    let grown = File::open(mounted_at).map_err(|error| error.to_string()).and_then(|dir| {
        // SAFETY: the descriptor is open, and the pointer is to a live u64 that is only read.
        #[allow(unsafe_code, reason = "an ioctl")]
        let done = unsafe { resize_fs(std::os::fd::AsRawFd::as_raw_fd(&dir), &raw const fitting) };
        done.map(drop).map_err(|errno| errno.desc().to_owned())
    });
    let device = disk.device.display();
    match grown {
        Ok(()) => log::debug(format_args!("{device} grown from {blocks} to {fitting} blocks")),
        Err(why) => log::line(format_args!(
            "{device} could not grow from {blocks} to {fitting} blocks: {why}"
        )),
    }
}

/// The size to grow to, unless the file system fills its device already.
fn blocks_to_reach(device_bytes: u64, blocks: u64, block_bytes: u64) -> Option<u64> {
    let fitting = device_bytes.checked_div(block_bytes)?;
    (fitting > blocks).then_some(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_by_whole_blocks_is_asked_for() {
        assert_eq!(blocks_to_reach(4096 * 10, 10, 4096), None);
        assert_eq!(blocks_to_reach(4096 * 10 + 4095, 10, 4096), None);
        assert_eq!(blocks_to_reach(4096 * 11, 10, 4096), Some(11));
        assert_eq!(blocks_to_reach(4096, 10, 4096), None);
        assert_eq!(blocks_to_reach(4096, 10, 0), None);
    }
}
