//! The root of a VM that does not run becomes an image. Blocking.
//!
//! ```text
//! clone of the image             its file system, as it is
//! image and a file of changes    the same, read through the list of changes
//! image and an overlay of it     two layers, as the guest's kernel lays them over each other
//! ```
//!
//! The disks are read and never mounted, and nothing is written to them. That nobody writes meanwhile
//! is looked at before and after: a disk that changed is no image.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ext4::read::{Changed, Content, Found, ReadAt, ReadError, Volume};
use super::ext4::{Builder, FileId, Special, refused, shown};
use super::import::{ImportError, Watch, is_kept};
use super::layers::TooMuch;
use crate::model::ImageLimits;
use crate::ports::RootSource;

/// What the agent keeps of jobs is the VM's own.
const LEFT_OUT: &[u8] = b"var/lib/banger";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// What overlays of other settings leave, and cannot be read without them.
const FOREIGN: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];

/// A file, and the time and size by which it is told that it was not written to.
struct Watched {
    path: PathBuf,
    file: File,
    look: Look,
}

type Look = (u64, i64, i64, i64, i64);

impl Watched {
    fn open(path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let look = look(&file).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, look })
    }

    fn handle(&self) -> Result<File, ImportError> {
        self.file.try_clone().map_err(ImportError::Open)
    }

    fn is_as_before(&self) -> Result<(), ImportError> {
        match look(&self.file) {
            Ok(now) if now == self.look => Ok(()),
            Ok(_) => Err(ImportError::DiskChanged),
            Err(source) => Err(ImportError::Read { path: self.path.display().to_string(), source }),
        }
    }
}

fn look(file: &File) -> std::io::Result<Look> {
    let meta = file.metadata()?;
    let (mtime, ctime) = (meta.mtime(), meta.ctime());
    Ok((meta.len(), mtime, meta.mtime_nsec(), ctime, meta.ctime_nsec()))
}

/// Adds the root to an image that is empty yet. `base` is the image that the VM was made from.
pub(super) fn read_root(
    root: &RootSource,
    base: &Path,
    limits: &ImageLimits,
    builder: &mut Builder,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    builder.limit_entries(limits.entries);
    let mut reader = Reader { builder, watch, limits, files: vec![], bytes: 0 };
    let image = File::open(base)
        .map_err(|source| ImportError::Read { path: base.display().to_string(), source });
    let watched = match root {
        RootSource::Clone(path) => {
            let disk = Watched::open(path)?;
            reader.layer(&open(disk.handle()?, path)?, Part::Root)?;
            disk
        }
        RootSource::Changes(path) => {
            let disk = Watched::open(path)?;
            let changed = Changed::open(image?, disk.handle()?);
            let changed = changed.map_err(|why| of_disk(path, why))?;
            reader.layer(&open(changed, path)?, Part::Root)?;
            disk
        }
        RootSource::Overlay(path) => {
            let disk = Watched::open(path)?;
            reader.layer(&open(image?, base)?, Part::Root)?;
            reader.builder.next_layer();
            reader.layer(&open(disk.handle()?, path)?, Part::Upper)?;
            disk
        }
    };
    reader.fill()?;
    watched.is_as_before()
}

/// Adds what one directory of a file system has to an image that is empty yet.
pub(super) fn read_directory(
    volume: &Volume,
    name: &[u8],
    limits: &ImageLimits,
    builder: &mut Builder,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    builder.limit_entries(limits.entries);
    let mut reader = Reader { builder, watch, limits, files: vec![], bytes: 0 };
    reader.layer(volume, Part::Directory(name))?;
    reader.fill()
}

/// Of a file system, what is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Root,
    /// What a guest's overlay has.
    Upper,
    Directory(&'a [u8]),
}

fn open(device: impl ReadAt + 'static, path: &Path) -> Result<Volume, ImportError> {
    Volume::open(Arc::new(device)).map_err(|why| of_disk(path, why))
}

fn of_disk(path: &Path, why: ReadError) -> ImportError {
    let disk = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    ImportError::Disk { disk, source: Box::new(ImportError::Ext4(why)) }
}

struct Reader<'a> {
    builder: &'a mut Builder,
    watch: &'a mut Watch,
    limits: &'a ImageLimits,
    files: Vec<(FileId, Vec<u8>, u64, super::ext4::read::Contents)>,
    bytes: u64,
}

impl Reader<'_> {
    fn layer(&mut self, volume: &Volume, part: Part<'_>) -> Result<(), ImportError> {
        let from: &[&[u8]] = match &part {
            Part::Root => &[],
            Part::Upper => &[b"upper"],
            Part::Directory(name) => &[name],
        };
        let is_upper = part == Part::Upper;
        let mut names = std::collections::HashMap::<u32, Vec<u8>>::new();
        volume.walk(from, &mut |found| {
            self.watch.going_on()?;
            let path = found.path.clone();
            let left_out = match part {
                Part::Root => path == LEFT_OUT || path == b"lost+found",
                Part::Upper => path == LEFT_OUT,
                Part::Directory(_) => false,
            };
            if left_out {
                return Ok(false);
            }
            if found.is_linked {
                if let Some(first) = names.get(&found.file) {
                    self.builder.place_hard_link(&path, first)?;
                    return Ok(true);
                }
                names.insert(found.file, path);
            }
            self.add(found, is_upper)?;
            Ok(true)
        })
    }

    fn add(&mut self, found: Found, is_upper: bool) -> Result<(), ImportError> {
        let Found { mut path, mut meta, content, .. } = found;
        if path.is_empty() {
            path.push(b'/');
        }
        let why_not = |why| ImportError::from(refused(&path, why));
        if is_upper {
            if let Content::Special(Special::Char { major: 0, minor: 0 }) = content {
                return self.builder.whiteout(&path).map_err(why_not);
            }
            if let Some(name) = FOREIGN.iter().find(|name| meta.xattrs.contains_key(**name)) {
                return Err(ImportError::Overlay { entry: shown(&path), name: shown(name) });
            }
            if meta.xattrs.get(OPAQUE).is_some_and(|value| value == b"y") {
                self.builder.opaque(&path).map_err(why_not)?;
            }
        }
        meta.xattrs.retain(|name, _| is_kept(name));
        match content {
            Content::Dir => self.builder.place_directory(&path, meta)?,
            Content::Symlink(target) => self.builder.place_symlink(&path, meta, &target)?,
            Content::Special(special) => self.builder.place_special(&path, meta, special)?,
            Content::File { len, contents } => {
                self.bytes = self.bytes.saturating_add(len);
                if self.bytes > self.limits.size.bytes() {
                    let why = TooMuch::Size(self.limits.size);
                    return Err(ImportError::TooMuch { entry: shown(&path), why });
                }
                let id = self.builder.place_file(&path, meta, len)?;
                self.files.push((id, path, len, contents));
            }
        }
        Ok(())
    }

    fn fill(self) -> Result<(), ImportError> {
        let Self { builder, watch, files, .. } = self;
        let still = builder.settle(files.iter().map(|(id, ..)| *id))?;
        for ((_, path, len, mut contents), id) in files.into_iter().zip(still) {
            let Some(id) = id else { continue };
            watch.going_on()?;
            builder.fill(id, &path, &mut contents).map_err(|error| watch.blame(error.into()))?;
            watch.count(len, builder.entries());
        }
        Ok(())
    }
}

impl From<ReadError> for ImportError {
    fn from(error: ReadError) -> Self {
        Self::Ext4(error)
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
