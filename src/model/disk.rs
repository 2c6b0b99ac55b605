//! How a VM's root disk is made from its image.

use std::fmt;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskChoice {
    /// The first of them that this host has.
    #[default]
    Auto,
    Only(DiskBackend),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBackend {
    /// A file that shares the image's blocks until they are written to (xfs, btrfs).
    Reflink,
    /// A block device over the image that keeps what is written in a file of its own.
    DmSnapshot,
    /// The guest itself lays an empty disk over the image.
    Overlay,
}

impl DiskBackend {
    pub const ALL: [Self; 3] = [Self::Reflink, Self::DmSnapshot, Self::Overlay];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::DmSnapshot => "dm-snapshot",
            Self::Overlay => "overlay",
        }
    }
}

impl fmt::Display for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was settled when the VM was made. It stays so: what is on the disk can be read in this way
/// only, whatever the host could do later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootDisk {
    pub backend: DiskBackend,
    pub why: String,
}

impl Default for RootDisk {
    /// Of VMs that were made when there was nothing to choose.
    fn default() -> Self {
        Self { backend: DiskBackend::Overlay, why: "there was no other then".to_owned() }
    }
}

/// What becomes of the host's choice for a VM that may start from another's memory: that starts
/// with copies of its disks, and a device is not copied. What was asked for by name stays.
#[must_use]
pub fn settle_root(choice: DiskChoice, found: RootDisk, warm: bool) -> RootDisk {
    match (choice, found.backend, warm) {
        (DiskChoice::Auto, DiskBackend::DmSnapshot, true) => RootDisk {
            backend: DiskBackend::Overlay,
            why: "a warm start copies disks, and a device is not copied".to_owned(),
        },
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_nobody_asked_for_gives_way_to_a_warm_start() {
        for found in DiskBackend::ALL {
            for choice in [DiskChoice::Auto, DiskChoice::Only(found)] {
                for warm in [false, true] {
                    let root = RootDisk { backend: found, why: "found".to_owned() };
                    let settled = settle_root(choice, root.clone(), warm);
                    let gives_way =
                        warm && choice == DiskChoice::Auto && found == DiskBackend::DmSnapshot;
                    match gives_way {
                        true => assert!(
                            settled.backend == DiskBackend::Overlay && settled.why != root.why
                        ),
                        false => assert_eq!(settled, root, "{choice:?} {warm}"),
                    }
                }
            }
        }
    }
}
