//! Where the files of an image lie: in a directory, or in one archive. Blocking.
//!
//! What must not be done here: take a name for a path. In a directory only digests and fixed names are
//! asked for; in an archive a name is a key.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::archive::Archive;
use super::document::MAX_DOCUMENT;
use crate::host::image::import::ImportError;
use crate::model::Digest;

const BUFFER: usize = 256 << 10;

#[derive(Clone, Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Archive(Arc<Archive>),
}

/// A file of a place, which can be read more than once.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Of messages.
    pub(super) shown: String,
    pub(super) bytes: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Slice { archive: Arc<Archive>, start: u64 },
}

/// Where documents name their parts.
pub(in crate::host::image) fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{digest}")
}

impl Place {
    pub(super) fn item(&self, name: &str) -> Result<Item, ImportError> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                let shown = path.display().to_string();
                let failed = |source| ImportError::Read { path: shown.clone(), source };
                let bytes = std::fs::metadata(&path).map_err(failed)?.len();
                Ok(Item { shown, bytes, source: Source::File(path) })
            }
            Self::Archive(archive) => {
                let shown = name.to_owned();
                let missing = || {
                    let source =
                        io::Error::new(io::ErrorKind::NotFound, "it is not in the archive");
                    ImportError::Read { path: shown.clone(), source }
                };
                let (start, bytes) = archive.find(name).ok_or_else(missing)?;
                let source = Source::Slice { archive: Arc::clone(archive), start };
                Ok(Item { shown, bytes, source })
            }
        }
    }

    /// All of a file that is small; what is not is no document.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let item = self.item(name)?;
        let failed = |source| ImportError::Read { path: item.shown.clone(), source };
        let mut bytes = vec![];
        let read = item.open().and_then(|from| from.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes));
        read.map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let why = "it is larger than 4 MiB";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        Ok(bytes)
    }
}

impl Item {
    pub(super) fn open(&self) -> io::Result<Box<dyn BufRead + Send>> {
        match &self.source {
            Source::File(path) => Ok(Box::new(BufReader::with_capacity(BUFFER, File::open(path)?))),
            Source::Slice { archive, start } => {
                let slice = Slice { archive: Arc::clone(archive), at: *start, left: self.bytes };
                Ok(Box::new(BufReader::with_capacity(BUFFER, slice)))
            }
        }
    }
}

/// Reads by place, so that many can at once.
struct Slice {
    archive: Arc<Archive>,
    at: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let read = self.archive.file.read_at(&mut into[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.at, self.left) = (self.at + read as u64, self.left - read as u64);
        Ok(read)
    }
}
