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
