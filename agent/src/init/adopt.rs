//! A blank guest becomes somebody: what a boot does for its identity, done later, and what only a
//! copy of another machine needs.

use std::fs;
use std::path::Path;

use banger_agent::contract::config::GuestConfig;
use nix::mount::{MsFlags, mount};

use super::{identity, net};
use crate::error::{Context as _, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const NEW_BOOT_ID: &str = "/run/banger-boot-id";
/// Each read of it is another UUID.
const FRESH_UUID: &str = "/proc/sys/kernel/random/uuid";

/// The kernel's random numbers are this machine's own by now.
pub(crate) fn adopt(config: &GuestConfig) -> Result<()> {
    renew_boot_id(Path::new(BOOT_ID), Path::new(NEW_BOOT_ID))?;
    identity::apply(config)?;
    config.net.as_ref().map_or(Ok(()), net::adopt)
}

/// The kernel drew its boot id when it booted, before it was copied, and cannot be told another
/// one. What reads it (journals, D-Bus, the host) takes two machines for one, so they get to read a
/// file of ours.
fn renew_boot_id(at: &Path, file: &Path) -> Result<()> {
    let uuid = fs::read(FRESH_UUID).context(|| format!("read {FRESH_UUID}"))?;
    fs::write(file, uuid).context(|| format!("write {}", file.display()))?;
    mount(Some(file), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context(|| format!("put another boot id on {}", at.display()))
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// In a mount namespace of its own; a thread has one.
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn another_boot_id_is_read_where_the_kernels_was() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root may mount");
            return;
        }
        let outside = fs::read_to_string(BOOT_ID).unwrap();
        let file = std::env::temp_dir().join(format!("banger-boot-id-{}", std::process::id()));
        let inside = std::thread::spawn({
            let file = file.clone();
            move || {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
                renew_boot_id(Path::new(BOOT_ID), &file).unwrap();
                fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()
            }
        });
        let inside = inside.join().unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(inside.len(), outside.len());
        assert_ne!(inside, outside);
        assert_eq!(fs::read_to_string(BOOT_ID).unwrap(), outside);
    }
}
