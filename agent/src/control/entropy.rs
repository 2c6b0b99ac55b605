//! Fresh randomness for a guest that resumes: what its kernel would draw next could have been drawn
//! before, by the guest that was saved, if that went on.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use banger_agent::contract::control::ENTROPY_BYTES;
use nix::errno::Errno;
use nix::libc;

const DEVICE: &str = "/dev/urandom";
/// `rand_pool_info` of linux/random.h.
#[repr(C)]
struct Pool {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; ENTROPY_BYTES],
}

/// `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)` of linux/random.h; random(4) has the words.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Mixes the bytes in, and has the generator start anew from them.
pub(super) fn renew(entropy: &[u8; ENTROPY_BYTES]) -> Result<(), String> {
    let device = File::options().write(true).open(DEVICE);
    let device = device.map_err(|error| format!("open {DEVICE}: {error}"))?;
    let size = libc::c_int::try_from(entropy.len()).unwrap_or_default();
    let pool = Pool { entropy_count: 8 * size, buf_size: size, buf: *entropy };
    // SAFETY: the structure is the one that this request reads, and lives until it returns.
    #[allow(unsafe_code, reason = "an ioctl")]
    let added = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, &raw const pool) };
    Errno::result(added).map_err(|errno| format!("add entropy: {}", errno.desc()))?;
    // SAFETY: this request takes no argument.
    #[allow(unsafe_code, reason = "an ioctl")]
    let anew = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _) };
    match Errno::result(anew) {
        // The generator was not seeded yet: then nothing was drawn from it either.
        Ok(_) | Err(Errno::ENODATA) => Ok(()),
        Err(errno) => Err(format!("reseed the random numbers: {}", errno.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_the_bytes_from_root_alone() {
        let taken = renew(&[0x5a; ENTROPY_BYTES]);
        match nix::unistd::geteuid().is_root() {
            true => assert_eq!(taken, Ok(())),
            false => assert!(taken.is_err_and(|why| why.starts_with("add entropy"))),
        }
    }
}
