//! What is known of images and kernels.

use super::ids::Digest;
use super::image_config::ImageConfig;
use super::name::Name;
use super::size::Size;

/// An image: one read-only ext4 file, shared by every VM made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    pub name: Name,
    /// Of the file system file; also its file name.
    pub digest: Digest,
    /// Of the ext4 file system, by which the guest finds the disk.
    pub uuid: [u8; 16],
    /// Apparent size of the file.
    pub size: Size,
    /// What it was made from: `mmdebstrap bookworm`, `tar rootfs.tar`.
    pub source: String,
    pub created_unix_ms: u64,
}

/// What is said of an image besides its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSaid {
    /// How it is run.
    pub config: Option<ImageConfig>,
    /// The kernel that VMs of it start with, unless they are told another.
    pub kernel: Option<Name>,
}

impl From<Option<ImageConfig>> for ImageSaid {
    fn from(config: Option<ImageConfig>) -> Self {
        Self { config, kernel: None }
    }
}

/// A kernel: an ELF `vmlinux` and an initramfs part with its modules in load order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRecord {
    pub name: Name,
    /// Of `vmlinux` and modules together; also its directory's name.
    pub digest: Digest,
    /// `6.1.0-50-cloud-amd64`.
    pub version: String,
    pub distro: String,
    pub arch: String,
    pub modules: u32,
    pub size: Size,
    pub source: String,
    pub created_unix_ms: u64,
}

/// What an image made of layers may be at most: their archives may claim anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// All layers unpacked, what later ones hide and holes of files included.
    pub size: Size,
    /// Files, directories and links of all layers.
    pub entries: usize,
    /// How many times what it takes packed a layer may unpack to.
    pub ratio: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { size: Size::from_bytes(64 << 30), entries: 1_000_000, ratio: 250 }
    }
}
