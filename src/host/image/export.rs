//! An image as a layout of the OCI's, in one archive that is written to whoever reads it. Blocking.
//!
//! A layout names its parts by their digests and says how large they are before they come, so the
//! image is read twice: once for the digest, once to be written. Nothing is kept meanwhile.

use std::io::{self, Read, Write};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::ext4::read::Volume;
use super::import::{ImportError, Watch};
use super::layers::write_layer;
use super::oci::{Documents, blob, documents};
use crate::model::{Digest, ImageConfig};
use crate::ports::ByteSink;

/// Counts and hashes what is written to it.
#[derive(Default)]
struct Sum {
    hash: Sha256,
    bytes: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives what is written to it away in pieces.
pub(super) struct Pieces {
    to: ByteSink,
    piece: Vec<u8>,
}

const PIECE: usize = 256 << 10;

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").finish_non_exhaustive()
    }
}

impl Pieces {
    pub(super) fn new(to: ByteSink) -> Self {
        Self { to, piece: Vec::with_capacity(PIECE) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        if piece.is_empty() || (self.to)(piece) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

pub(super) fn export(
    image: std::fs::File,
    name: &str,
    config: &ImageConfig,
    out: &mut dyn Write,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    let volume = Volume::open(Arc::new(image)).map_err(ImportError::Ext4)?;
    let mut sum = Sum::default();
    write_layer(&volume, &mut sum, watch)?;
    let (layer, bytes) = (Digest(sum.hash.finalize().into()), sum.bytes);
    let Documents { manifest, config, index } = documents(name, config, layer, bytes);
    let name_of = |bytes: &[u8]| blob(Digest(Sha256::digest(bytes).into()));
    let mut archive = Archive::new(out);
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", &index)?;
    archive.file(&name_of(&manifest), &manifest)?;
    archive.file(&name_of(&config), &config)?;
    archive.begin(&blob(layer), bytes)?;
    // An image never changes, so it is the same again, and a layer is a whole number of blocks.
    debug_assert_eq!(bytes % 512, 0);
    write_layer(&volume, archive.0, watch)?;
    archive.end()
}

/// A tar whose entries say nothing of when and where it was made.
pub(super) struct Archive<'a>(&'a mut dyn Write);

impl std::fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl<'a> Archive<'a> {
    pub(super) fn new(to: &'a mut dyn Write) -> Self {
        Self(to)
    }

    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImportError> {
        self.contents(name, &mut &*bytes, bytes.len() as u64)
    }

    /// A file of so many bytes, which is what there is to be read.
    pub(super) fn contents(
        &mut self,
        name: &str,
        from: &mut dyn Read,
        bytes: u64,
    ) -> Result<(), ImportError> {
        self.begin(name, bytes)?;
        let mut put = || {
            let read = io::copy(&mut from.take(bytes), self.0)?;
            if read < bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let padding = usize::try_from(bytes.next_multiple_of(512) - bytes);
            self.0.write_all(&vec![0; padding.unwrap_or(0)])
        };
        put().map_err(|source| ImportError::Write { entry: name.to_owned(), source })
    }

    fn begin(&mut self, name: &str, bytes: u64) -> Result<(), ImportError> {
        let failed = |source| ImportError::Write { entry: name.to_owned(), source };
        let mut header = tar::Header::new_gnu();
        header.set_path(name).map_err(failed)?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes);
        header.set_cksum();
        self.0.write_all(header.as_bytes()).map_err(failed)
    }

    pub(super) fn end(self) -> Result<(), ImportError> {
        let failed = |source| ImportError::Write { entry: "its end".to_owned(), source };
        self.0.write_all(&[0; 1024]).map_err(failed)?;
        self.0.flush().map_err(failed)
    }
}
