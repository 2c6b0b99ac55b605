//! Files of images and kernels: ext4 root file systems, kernels with their modules, initramfs.
//!
//! ```text
//! tar, directory, mmdebstrap -> import -> ext4 -> images/<digest>.ext4
//! container image            -> oci -> layers -> ext4 -> images/<digest>.ext4
//! Containerfile              -> buildah -> as a container image
//! registry                   -> blobs/sha256/<digest> -> as a container image
//! bundle, from a file or URL -> bundle -> as an image or a kernel, and the same way out
//! root of a stopped VM       -> commit -> ext4 -> images/<digest>.ext4 -> export -> an OCI layout
//! Debian's sources           -> apt -> as a package of a kernel
//! package, kernel file       -> kernel         -> kernels/<digest>/{vmlinux,modules.cpio,manifest.json}
//! kernel + agent             -> cpio           -> initrd/<kernel>-<agent>.cpio
//! ```
//!
//! All of it works as an ordinary user.

mod apt;
mod apt_sources;
mod buildah;
mod bundle;
mod child;
mod commit;
mod cpio;
mod debian;
mod draft;
mod export;
mod ext4;
mod import;
mod kernel;
mod layers;
mod local;
mod oci;
mod registry;
mod seed;
mod shelf;
mod sparse;
mod tarball;
mod unpack;
mod workdir;

pub use bundle::take_bundle;
pub use layers::{Layer, merge_layers};
pub use local::LocalImages;
