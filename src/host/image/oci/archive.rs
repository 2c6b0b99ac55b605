//! An image in one tar, as `docker save` and `skopeo copy … oci-archive:` write it: what lies where.
//! Blocking.
//!
//! Nothing is extracted. An archive that is packed is unpacked into one file first, for its layers are
//! read more than once and from anywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use crate::host::image::ext4::shown;
use crate::host::image::import::{Cancellable, ImportError, Watch};
use crate::host::image::layers::{HARMLESS, TooMuch};
use crate::host::image::tarball::{TarKind, Tarball};
use crate::host::image::unpack::{PLAIN, unpack};
use crate::model::ImageLimits;

const BUFFER: usize = 256 << 10;
/// Files of an archive: a layer is three of them in the oldest form.
const MAX_FILES: usize = 10_000;
/// From one name to another; older archives link a layer to the same one of another image.
const MAX_HOPS: usize = 8;
/// What an archive may have besides its layers.
const SLACK: u64 = 64 << 20;

#[derive(Debug)]
pub(in crate::host::image) struct Archive {
    /// Not packed.
    pub(super) file: File,
    files: BTreeMap<String, Found>,
}

#[derive(Debug)]
enum Found {
    At(u64, u64),
    Link(String),
}

impl Archive {
    /// `None`, as soon as a name tells: this is a root file system, or no archive at all, which its
    /// import tells better. `spill` is made if the archive is packed.
    pub(in crate::host::image) fn open(
        path: &Path,
        spill: &Path,
        limits: &ImageLimits,
        watch: &Watch,
    ) -> Result<Option<Self>, ImportError> {
        let failed = ImportError::Open;
        let file = File::open(path).map_err(failed)?;
        let again = file.try_clone().map_err(failed)?;
        let unpacked = unpack(BufReader::with_capacity(BUFFER, again))?;
        let from = Cancellable::new(unpacked.from, watch.cancel.clone());
        let mut counted = Counted { from, to: None, at: 0, most: None };
        let mut kept = file;
        if unpacked.format != PLAIN {
            let packed = kept.metadata().map_err(failed)?.len();
            let spilled = File::options().read(true).write(true).create_new(true).open(spill);
            kept = spilled.map_err(failed)?;
            counted.to = Some(kept.try_clone().map_err(failed)?);
            counted.most = Some(Allowance::of(packed, limits));
        }
        let files = read_names(counted).map_err(|error| watch.blame(error))?;
        Ok(files.map(|files| Self { file: kept, files }))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Where a file's contents begin, and how many bytes they are.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = plain(name.as_bytes())?;
        for _ in 0..MAX_HOPS {
            match self.files.get(&name)? {
                Found::At(start, bytes) => return Some((*start, *bytes)),
                Found::Link(target) => {
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    name = beside(dir, target)?;
                }
            }
        }
        None
    }
}

fn read_names(from: Counted) -> Result<Option<BTreeMap<String, Found>>, ImportError> {
    let mut files = BTreeMap::new();
    let mut tar = Tarball::new(from);
    let mut last = String::new();
    loop {
        let entry = match tar.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) if last.is_empty() => return Ok(None),
            Err(error) => {
                return Err(match tar.source().too_much() {
                    Some(why) => ImportError::TooMuch { entry: last, why },
                    None => error.into(),
                });
            }
        };
        let Some(name) = plain(&entry.path) else {
            if last.is_empty() {
                return Ok(None);
            }
            return Err(ImportError::NotOfAnImage { entry: shown(&entry.path) });
        };
        if name.is_empty() {
            continue;
        }
        if !is_of_an_image(&name) {
            return Ok(None);
        }
        last.clone_from(&name);
        let found = match entry.kind {
            TarKind::File => Found::At(tar.source().at, entry.size),
            TarKind::Symlink(target) => Found::Link(shown(&target)),
            TarKind::Dir => continue,
            _ => return Err(ImportError::NotOfAnImage { entry: name }),
        };
        if files.insert(name.clone(), found).is_some() {
            return Err(ImportError::Twice { entry: name });
        }
        if files.len() > MAX_FILES {
            return Err(ImportError::NotARoot("it has more files than an image is made of"));
        }
    }
    let marks = ["oci-layout", "manifest.json", "repositories"];
    Ok(marks.iter().any(|mark| files.contains_key(*mark)).then_some(files))
}

/// Without `./` and slashes too many. None of what leads elsewhere, and of what no tool writes.
fn plain(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    if text.starts_with('/') {
        return None;
    }
    beside("", text)
}

/// `target` as seen from `dir`; what leads out is nowhere.
fn beside(dir: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Whether a tool that writes images gives this name; a root file system's first name is another.
fn is_of_an_image(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or(name);
    let stem = first.split('.').next().unwrap_or(first);
    let is_digest = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest
        || ["blobs", "index.json", "manifest.json", "oci-layout", "repositories"].contains(&first)
}

/// How far a packed archive may be unpacked.
struct Allowance {
    bytes: u64,
    why: TooMuch,
}

impl Allowance {
    /// What its layers are made of may be packed once more, so the ratio counts as theirs does.
    fn of(packed: u64, limits: &ImageLimits) -> Self {
        let by_size = limits.size.bytes().saturating_add(SLACK);
        let by_ratio = packed.saturating_mul(u64::from(limits.ratio)).max(HARMLESS);
        if by_ratio < by_size {
            return Self { bytes: by_ratio, why: TooMuch::Ratio(limits.ratio) };
        }
        Self { bytes: by_size, why: TooMuch::Size(limits.size) }
    }
}

/// Knows where it is, and writes down what it reads if that has to be kept.
struct Counted {
    from: Cancellable<Box<dyn Read + Send>>,
    to: Option<File>,
    at: u64,
    most: Option<Allowance>,
}

impl Counted {
    fn too_much(&self) -> Option<TooMuch> {
        self.most.as_ref().filter(|most| self.at > most.bytes).map(|most| most.why)
    }
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(why) = self.too_much() {
            return Err(io::Error::other(why));
        }
        let read = self.from.read(into)?;
        if let Some(to) = &mut self.to {
            to.write_all(&into[..read])?;
        }
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
