//! Where a layer is read from, and how much of it at most.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::host::image::import::Cancellable;
use crate::model::{Digest, ImageLimits, Size};

/// Unpacked, no layer is refused for its ratio below this: a file of zeros is no attack.
pub(in crate::host::image) const HARMLESS: u64 = 256 << 20;

type Opened = Box<dyn BufRead + Send>;

/// An archive, packed or not, that can be read from its beginning more than once.
pub struct Layer {
    /// Of messages.
    name: String,
    /// As it lies there.
    bytes: u64,
    /// Of what is in it, unpacked, if that is known.
    diff_id: Option<Digest>,
    open: Box<dyn Fn() -> io::Result<Opened> + Send>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Layer {
    pub fn new(
        name: String,
        bytes: u64,
        diff_id: Option<Digest>,
        open: impl Fn() -> io::Result<Opened> + Send + 'static,
    ) -> Self {
        Self { name, bytes, diff_id, open: Box::new(open) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn diff_id(&self) -> Option<Digest> {
        self.diff_id
    }

    pub(super) fn open(&self) -> io::Result<Opened> {
        (self.open)()
    }

    /// How far it may be unpacked, if layers before it took so much.
    pub(super) fn allowance(&self, limits: &ImageLimits, before: u64) -> Allowance {
        let left = limits.size.bytes().saturating_sub(before);
        let by_ratio = self.bytes.saturating_mul(u64::from(limits.ratio)).max(HARMLESS);
        if by_ratio < left {
            Allowance { bytes: by_ratio, why: TooMuch::Ratio(limits.ratio) }
        } else {
            Allowance { bytes: left, why: TooMuch::Size(limits.size) }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    bytes: u64,
    why: TooMuch,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::host::image) enum TooMuch {
    #[error("with it the image takes more than {0}, the limit `image_size`")]
    Size(Size),
    #[error("it unpacks to more than {0} times what it takes packed, the limit `image_ratio`")]
    Ratio(u32),
}

/// Counts and hashes what is read of a layer, and ends it where it has to.
pub(super) struct Meter {
    from: Cancellable<Box<dyn Read + Send>>,
    hash: Sha256,
    allowance: Allowance,
    read: u64,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("read", &self.read).finish_non_exhaustive()
    }
}

impl Meter {
    pub(super) fn new(
        from: Box<dyn Read + Send>,
        allowance: Allowance,
        cancel: CancellationToken,
    ) -> Self {
        let from = Cancellable::new(from, cancel);
        Self { from, hash: Sha256::new(), allowance, read: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.read
    }

    /// Why it was ended, if it was.
    pub(super) fn too_much(&self) -> Option<TooMuch> {
        (self.read > self.allowance.bytes).then_some(self.allowance.why)
    }

    /// Of all that was read.
    pub(super) fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }
}

impl Read for Meter {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(why) = self.too_much() {
            return Err(io::Error::other(why));
        }
        let read = self.from.read(into)?;
        self.hash.update(&into[..read]);
        self.read += read as u64;
        Ok(read)
    }
}
