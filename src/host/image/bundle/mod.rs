//! Images and kernels in one file each, to be handed on and taken in again as they are.
//!
//! ```text
//! banger-bundle.json   what it holds, and size and digest of each file that follows
//! rootfs.ext4          of an image: the file that VMs share, to the last byte
//! vmlinux, modules.cpio   of a kernel: what its directory has
//! ```
//!
//! in a tar, packed with zstd. Whoever made one may be anybody: nothing is extracted by a name that an
//! archive says, each file is hashed while it comes, and what it says of itself is compared with what is
//! found. What must not be done here: believe in a digest that was not taken from the bytes.

mod accept;
mod kernel_files;
mod manifest;
mod read;
mod write;

use std::fs::File;
use std::io::BufRead;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::import::{ImportError, Watch};
use crate::model::ImageLimits;
use crate::ports::HostError;

pub(super) use accept::{Sound, accept};
pub(super) use kernel_files::prepared;
pub(super) use manifest::{BundleError, Contents, Said};
pub(super) use read::Bundle;
pub(super) use write::{image, kernel};

/// For fuzzing: an image into `file` and what new work disks begin with into `seed`, or a kernel into memory.
pub fn take_bundle(
    from: impl BufRead + Send + 'static,
    packed: u64,
    limits: &ImageLimits,
    file: File,
    seed: File,
) -> Result<(), HostError> {
    let mut watch = Watch::new(Arc::new(|_| {}), CancellationToken::new());
    let take = || {
        let bundle = Bundle::open(from, packed, limits, &watch)?.ok_or(BundleError::NotABundle)?;
        match bundle.manifest.contents {
            Contents::Image { .. } => {
                accept(bundle, &file, "root", seed, limits, &mut watch).map(drop)
            }
            Contents::Kernel(_) => prepared(bundle, &mut watch).map(drop),
        }
    };
    take().map_err(|error: ImportError| error.on("take", "bundle"))
}

#[cfg(test)]
mod hostile_tests;
