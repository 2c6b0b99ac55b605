//! A bundle as it comes, from its first byte to its last.
//!
//! The manifest comes first and says how much follows; no more than that is unpacked.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::manifest::{BundleError, FileSaid, MANIFEST, MAX_MANIFEST, Manifest};
use crate::host::image::ext4::shown;
use crate::host::image::import::{Cancellable, ImportError, Watch};
use crate::host::image::layers::{HARMLESS, TooMuch};
use crate::host::image::tarball::{TarEntry, TarError, TarKind, Tarball, read_error};
use crate::host::image::unpack::unpack;
use crate::model::{Digest, ImageLimits};

/// What an archive has besides its files: headers, padding, its end. Some tools end one with many zeros.
const SLACK: u64 = 1 << 20;
/// A multiple of what holes are told by.
const PIECE: usize = 256 << 10;

/// Unpacks so much and no more.
struct Bounded {
    from: Cancellable<Box<dyn Read + Send>>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !into.is_empty() {
            // Its end may be just here.
            return match self.from.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other(BundleError::Trailing)),
            };
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let read = self.from.read(&mut into[..room])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Open behind its manifest.
pub(in crate::host::image) struct Bundle {
    pub(in crate::host::image) manifest: Manifest,
    tar: Tarball<Bounded>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

impl Bundle {
    /// `None`, as its first name tells: it is none, or no archive at all, which others say better.
    /// `packed` is what it takes as it lies there.
    pub(in crate::host::image) fn open(
        from: impl BufRead + Send + 'static,
        packed: u64,
        limits: &ImageLimits,
        watch: &Watch,
    ) -> Result<Option<Self>, ImportError> {
        let Ok(unpacked) = unpack(from) else { return Ok(None) };
        let from = Cancellable::new(unpacked.from, watch.cancel.clone());
        let mut tar = Tarball::new(Bounded { from, left: MAX_MANIFEST + SLACK });
        let first = match tar.next() {
            Ok(Some(first)) if first.path == MANIFEST.as_bytes() => first,
            _ => return watch.going_on().map(|()| None),
        };
        let opened = Self::behind(&first, tar, packed, limits);
        opened.map(Some).map_err(|error| watch.blame(error))
    }

    fn behind(
        first: &TarEntry,
        mut tar: Tarball<Bounded>,
        packed: u64,
        limits: &ImageLimits,
    ) -> Result<Self, ImportError> {
        if first.kind != TarKind::File {
            return Err(BundleError::NotAFile(MANIFEST.to_owned()).into());
        }
        if first.size > MAX_MANIFEST {
            return Err(BundleError::ManifestTooLong(first.size).into());
        }
        let mut bytes = vec![];
        tar.contents().read_to_end(&mut bytes).map_err(read_error)?;
        if (bytes.len() as u64) < first.size {
            return Err(TarError::CutShort.into());
        }
        let manifest = Manifest::parse(&bytes)?;
        let total = check_sizes(&manifest.files, packed, limits)?;
        tar.source_mut().left = total + SLACK;
        Ok(Self { manifest, tar })
    }

    /// Hands on each file in pieces, all of them full but the last. All of them came, and are what
    /// the manifest says, once this returns.
    pub(in crate::host::image) fn each(
        mut self,
        watch: &mut Watch,
        to: &mut dyn FnMut(&str, &[u8]) -> io::Result<()>,
    ) -> Result<Manifest, ImportError> {
        let read = self.read_all(watch, to);
        read.map_err(|error| watch.blame(error))?;
        Ok(self.manifest)
    }

    fn read_all(
        &mut self,
        watch: &mut Watch,
        to: &mut dyn FnMut(&str, &[u8]) -> io::Result<()>,
    ) -> Result<(), ImportError> {
        let mut missing = self.manifest.files.clone();
        while let Some(entry) = self.tar.next().map_err(trailing)? {
            let name = shown(&entry.path);
            let Some(said) = missing.iter().position(|file| file.name == name) else {
                let known =
                    name == MANIFEST || self.manifest.files.iter().any(|file| file.name == name);
                return Err(match known {
                    true => BundleError::Twice(name),
                    false => BundleError::Unknown(name),
                }
                .into());
            };
            let said = missing.swap_remove(said);
            if entry.kind != TarKind::File {
                return Err(BundleError::NotAFile(name).into());
            }
            if entry.size != said.size {
                let (wanted, found) = (said.size, entry.size);
                return Err(BundleError::Size { name, wanted, found }.into());
            }
            self.read_one(&said, watch, to)?;
        }
        match missing.pop() {
            Some(file) => Err(BundleError::Missing(file.name).into()),
            None => Ok(()),
        }
    }

    fn read_one(
        &mut self,
        said: &FileSaid,
        watch: &mut Watch,
        to: &mut dyn FnMut(&str, &[u8]) -> io::Result<()>,
    ) -> Result<(), ImportError> {
        let mut contents = self.tar.contents();
        let (mut hash, mut left) = (Sha256::new(), said.size);
        let mut piece = vec![0; PIECE];
        while left > 0 {
            watch.going_on()?;
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let piece = &mut piece[..room];
            contents.read_exact(piece).map_err(read_error)?;
            hash.update(&*piece);
            to(&said.name, piece)
                .map_err(|source| ImportError::Write { entry: said.name.clone(), source })?;
            left -= room as u64;
            watch.count(room as u64, 1);
        }
        let found = Digest(hash.finalize().into());
        if found != said.sha256 {
            let (name, wanted) = (said.name.clone(), said.sha256);
            return Err(BundleError::Digest { name, wanted, found }.into());
        }
        Ok(())
    }
}

/// Of all files together. Sizes count as they are claimed, before anything is unpacked.
fn check_sizes(files: &[FileSaid], packed: u64, limits: &ImageLimits) -> Result<u64, ImportError> {
    let mut total = 0_u64;
    let by_ratio = packed.saturating_mul(u64::from(limits.ratio)).max(HARMLESS);
    for file in files {
        total = total.saturating_add(file.size);
        let entry = file.name.clone();
        if total > limits.size.bytes() {
            return Err(ImportError::TooMuch { entry, why: TooMuch::Size(limits.size) });
        }
        if total > by_ratio {
            return Err(ImportError::TooMuch { entry, why: TooMuch::Ratio(limits.ratio) });
        }
    }
    Ok(total)
}

/// What goes on behind its end is told by the bundle's own word.
fn trailing(error: TarError) -> ImportError {
    let is_ours = |source: &io::Error| {
        source.get_ref().is_some_and(|inner| inner.downcast_ref::<BundleError>().is_some())
    };
    match error {
        TarError::Trailing => BundleError::Trailing.into(),
        TarError::Read(source) if is_ours(&source) => BundleError::Trailing.into(),
        other => other.into(),
    }
}
