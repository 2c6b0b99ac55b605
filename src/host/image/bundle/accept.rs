//! An image as it came in a bundle: whether it is one, to the last byte. Blocking.
//!
//! The file is taken over as it is, so that an image has the same digest wherever it came from. Guests
//! mount it, and this host reads it; so all of it is read once here, and what does not make sense or goes
//! past the limits is refused.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::manifest::{BundleError, ROOTFS};
use super::read::Bundle;
use crate::host::disk::{Superblock, write_sparse};
use crate::host::image::commit;
use crate::host::image::ext4::read::{Content, ReadError, Volume};
use crate::host::image::ext4::{Builder, Built, digest_of, is_as_made, shown, uuid_of};
use crate::host::image::import::{ImportError, Watch};
use crate::host::image::layers::TooMuch;
use crate::model::{Digest, ImageLimits, chain};

/// An image whose file is whole and as banger makes them.
#[derive(Clone, Copy, Debug)]
pub(in crate::host::image) struct Sound {
    pub(in crate::host::image) built: Built,
    pub(in crate::host::image) entries: usize,
    /// Whether there is something in the directory that new work disks begin with.
    pub(in crate::host::image) seeded: bool,
}

/// Unpacks the image into `file`, which is new and empty, and what new work disks begin with, the
/// contents of `home`, into `seed`, which is, too.
pub(in crate::host::image) fn accept(
    bundle: Bundle,
    file: &File,
    home: &str,
    seed: File,
    limits: &ImageLimits,
    watch: &mut Watch,
) -> Result<Sound, ImportError> {
    let mut at = 0;
    let manifest = bundle.each(watch, &mut |_, piece| {
        write_sparse(file, piece, at)?;
        at += piece.len() as u64;
        Ok(())
    })?;
    let written = |source| ImportError::Write { entry: ROOTFS.to_owned(), source };
    file.set_len(at).map_err(written)?;
    let built = check(file, manifest.digest, watch)?;
    let volume = file.try_clone().map_err(written).map(Arc::new)?;
    let volume = Volume::open(volume).map_err(odd)?;
    let (entries, seeded) = look(&volume, home, limits, watch)?;
    if seeded {
        let mut builder = Builder::new(seed);
        commit::read_directory(&volume, home.as_bytes(), limits, &mut builder, watch)?;
        builder.finish()?;
    }
    Ok(Sound { built, entries, seeded })
}

fn check(file: &File, wanted: Digest, watch: &Watch) -> Result<Built, ImportError> {
    let not = |why: String| ImportError::from(BundleError::NotAnImage(why));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => not("it is cut short".to_owned()),
        _ if watch.cancel.is_cancelled() => ImportError::Cancelled,
        _ => ImportError::Read { path: ROOTFS.to_owned(), source: error },
    };
    let superblock = Superblock::read(file).map_err(|error| not(chain(&error)))?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes != superblock.bytes() {
        return Err(not(format!("it has {bytes} bytes and says {}", superblock.bytes())));
    }
    let cancelled = || io::Error::other("cancelled");
    let going_on = || watch.going_on().map_err(|_| cancelled());
    let found = digest_of(file, going_on).map_err(failed)?;
    if found != wanted {
        return Err(BundleError::Content { what: "image", wanted, found }.into());
    }
    if !is_as_made(file, found).map_err(failed)? {
        return Err(not("its tables are not those of its digest".to_owned()));
    }
    Ok(Built { digest: found, uuid: uuid_of(found), bytes })
}

/// Reads all names: how many there are, and whether there are any in `home`.
fn look(
    volume: &Volume,
    home: &str,
    limits: &ImageLimits,
    watch: &Watch,
) -> Result<(usize, bool), ImportError> {
    let (mut entries, mut bytes, mut seeded, mut bootable) = (0_usize, 0_u64, false, false);
    let in_home = format!("{home}/").into_bytes();
    volume
        .walk(&[], &mut |found| {
            watch.going_on()?;
            entries += 1;
            if entries > limits.entries {
                return Err(BundleError::TooManyEntries(limits.entries).into());
            }
            seeded |= found.path.starts_with(&in_home);
            if let Content::File { len, .. } = found.content {
                bytes = bytes.saturating_add(len);
                if bytes > limits.size.bytes() {
                    let (entry, why) = (shown(&found.path), TooMuch::Size(limits.size));
                    return Err(ImportError::TooMuch { entry, why });
                }
                bootable |= found.meta.mode & 0o111 != 0 && len > 0;
            }
            Ok(true)
        })
        .map_err(|error| match error {
            ImportError::Ext4(error) => odd(error),
            other => other,
        })?;
    if !bootable {
        return Err(ImportError::NotARoot("it is no root file system: there is no program in it"));
    }
    Ok((entries, seeded))
}

fn odd(error: ReadError) -> ImportError {
    match error {
        ReadError::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            ImportError::Read { path: ROOTFS.to_owned(), source }
        }
        other => BundleError::NotAnImage(chain(&other)).into(),
    }
}
