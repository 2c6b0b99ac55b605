//! Root file systems from archives and directories. Blocking; run on a blocking thread.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use tokio_util::sync::CancellationToken;

use super::bundle::BundleError;
use super::ext4::read::ReadError;
use super::ext4::{BuildError, Builder, Meta, Refusal, Special, refused};
use super::layers::TooMuch;
use super::oci::DocumentError;
use super::tarball::{TarEntry, TarError, TarKind, Tarball};
use super::unpack::{UnpackError, unpack};
use crate::model::{Code, Digest, Size};
use crate::ports::{HostError, ProgressSink};

#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("read {path:?}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    NotARoot(&'static str),
    #[error("everything lies in the directory {0:?}")]
    Nested(String),
    #[error("cancelled")]
    Cancelled,
    #[error("open")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("layer {layer}")]
    Layer {
        layer: String,
        #[source]
        source: Box<ImportError>,
    },
    #[error("entry {entry:?}: {why}")]
    TooMuch { entry: String, why: TooMuch },
    #[error("entry {entry:?} does not belong into an image's archive")]
    NotOfAnImage { entry: String },
    #[error("entry {entry:?} is there twice")]
    Twice { entry: String },
    #[error("disk {disk}")]
    Disk {
        disk: String,
        #[source]
        source: Box<ImportError>,
    },
    #[error(transparent)]
    Ext4(ReadError),
    #[error("the VM's disk was written to while it was read")]
    DiskChanged,
    #[error("{entry:?} has the attribute {name}, of an overlay that is made in another way")]
    Overlay { entry: String, name: String },
    #[error("write {entry:?}")]
    Write {
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("its contents are {found}, and the image says {wanted}")]
    DiffId { wanted: Digest, found: Digest },
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl ImportError {
    pub(super) fn on(self, operation: &'static str, object: &str) -> HostError {
        let mut hints = vec![];
        let code = self.code(&mut hints);
        if code == Code::NoSpace {
            hints.push("nothing was left behind; make room and try again".to_owned());
        }
        let mut error = HostError::new(code, operation, object).because(self);
        error.hints = hints;
        error
    }

    fn code(&self, hints: &mut Vec<String>) -> Code {
        match self {
            Self::Cancelled => Code::Cancelled,
            Self::NotARoot(_) => {
                hints.push("a root file system has programs in bin or usr/bin".to_owned());
                Code::Invalid
            }
            Self::Nested(dir) => {
                hints.push(format!("pack what is in it: tar -C {dir} -cf rootfs.tar ."));
                Code::Invalid
            }
            Self::Build(BuildError::Refused { .. })
            | Self::Unpack(UnpackError::Unsupported(_))
            | Self::Tar(TarError::Unsupported { .. } | TarError::NotTar) => Code::Invalid,
            Self::Tar(TarError::Read(source)) | Self::Unpack(UnpackError::Read(source)) => {
                packed_code(source)
            }
            Self::Tar(_) => Code::Corrupt,
            Self::Build(BuildError::Copy { source, .. }) => match source.kind() {
                io::ErrorKind::UnexpectedEof => Code::Corrupt,
                _ => packed_code(source),
            },
            Self::Build(BuildError::Tables(source))
            | Self::Read { source, .. }
            | Self::Open(source) => io_code(source),
            Self::Build(BuildError::TooLarge) => Code::Invalid,
            Self::Layer { source, .. } | Self::Disk { source, .. } => source.code(hints),
            Self::Ext4(ReadError::NotClean) => {
                hints.push("start the VM, and stop it in good order: banger vm stop".to_owned());
                Code::Refused
            }
            Self::Ext4(ReadError::Feature(_)) | Self::Overlay { .. } => Code::Invalid,
            Self::Ext4(ReadError::Io(source)) | Self::Write { source, .. } => io_code(source),
            Self::Ext4(_) => Code::Corrupt,
            Self::DiskChanged => {
                hints.push("stop the VM, and try again".to_owned());
                Code::Busy
            }
            Self::TooMuch { .. } => {
                hints.push("if you trust the image, raise the limit in [limits]".to_owned());
                Code::Invalid
            }
            Self::DiffId { .. }
            | Self::Document(DocumentError::Digest { .. } | DocumentError::Size { .. }) => {
                Code::Corrupt
            }
            Self::Document(_) | Self::NotOfAnImage { .. } | Self::Twice { .. } => Code::Invalid,
            Self::Bundle(error) => {
                hints.extend(error.hint().map(str::to_owned));
                if error.is_damage() { Code::Corrupt } else { Code::Invalid }
            }
        }
    }
}

/// Decompressors report damage as invalid data or input.
fn packed_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Code::Corrupt
        }
        _ => io_code(error),
    }
}

fn io_code(error: &io::Error) -> Code {
    // It knows which kinds mean a full disk, a missing file, a missing permission.
    HostError::io("", "", io::Error::from(error.kind())).code
}

/// Where an import stands: told to the user every so often, and asked whether to go on.
pub(super) struct Watch {
    pub(super) progress: ProgressSink,
    pub(super) cancel: CancellationToken,
    pub(super) bytes: u64,
    told: u64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Watch {
    const STEP: u64 = 64 << 20;

    pub(super) fn new(progress: ProgressSink, cancel: CancellationToken) -> Self {
        Self { progress, cancel, bytes: 0, told: 0 }
    }

    pub(super) fn going_on(&self) -> Result<(), ImportError> {
        if self.cancel.is_cancelled() { Err(ImportError::Cancelled) } else { Ok(()) }
    }

    pub(super) fn count(&mut self, bytes: u64, entries: usize) {
        self.bytes += bytes;
        if self.bytes - self.told >= Self::STEP {
            self.told = self.bytes;
            let size = Size::from_bytes(self.bytes);
            (self.progress)(format!("{size} in {entries} files so far"));
        }
    }

    /// Errors in the middle of a file are the cancellation's if there was one.
    pub(super) fn blame(&self, error: ImportError) -> ImportError {
        if self.cancel.is_cancelled() { ImportError::Cancelled } else { error }
    }
}

/// Ends when cancelled, in the middle of a large file too.
pub(super) struct Cancellable<R> {
    from: R,
    cancel: CancellationToken,
}

impl<R> std::fmt::Debug for Cancellable<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancellable").finish_non_exhaustive()
    }
}

impl<R> Cancellable<R> {
    pub(super) fn new(from: R, cancel: CancellationToken) -> Self {
        Self { from, cancel }
    }
}

impl<R: Read> Read for Cancellable<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.from.read(into)
    }
}

pub(super) fn from_tar(
    from: impl BufRead + Send + 'static,
    builder: &mut Builder,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    let unpacked = unpack(from)?;
    let mut tar = Tarball::new(Cancellable::new(unpacked.from, watch.cancel.clone()));
    let mut add = || -> Result<(), ImportError> {
        while let Some(entry) = tar.next()? {
            watch.going_on()?;
            let size = if entry.kind == TarKind::File { entry.size } else { 0 };
            add_entry(builder, &mut tar, entry)?;
            watch.count(size, builder.entries());
        }
        Ok(())
    };
    let added = add();
    added.map_err(|error| watch.blame(error))
}

fn add_entry<R: Read>(
    builder: &mut Builder,
    tar: &mut Tarball<R>,
    entry: TarEntry,
) -> Result<(), ImportError> {
    let meta = tar_meta(&entry)?;
    let path = &entry.path;
    match &entry.kind {
        TarKind::File => builder.file(path, meta, &mut tar.contents(), entry.size)?,
        TarKind::Dir => builder.directory(path, meta)?,
        TarKind::HardLink(target) => builder.hard_link(path, target)?,
        TarKind::Symlink(target) => builder.symlink(path, meta, target)?,
        TarKind::Special(special) => builder.special(path, meta, *special)?,
    }
    Ok(())
}

pub(super) fn tar_meta(entry: &TarEntry) -> Result<Meta, BuildError> {
    let id =
        |id: u64| u32::try_from(id).map_err(|_| refused(&entry.path, Refusal::OutOfRange("owner")));
    Ok(Meta {
        mode: mode_bits(entry.mode),
        uid: id(entry.uid)?,
        gid: id(entry.gid)?,
        mtime: entry.mtime,
        mtime_nsec: entry.mtime_nsec,
        xattrs: entry.xattrs.iter().filter(|(name, _)| is_kept(name)).map(owned).collect(),
    })
}

fn owned((name, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (name.clone(), value.clone())
}

fn mode_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// Whether the attribute belongs to the content. What the old host's security modules, network
/// file systems or overlays noted does not.
pub(super) fn is_kept(name: &[u8]) -> bool {
    if [&b"system.posix_acl_access"[..], b"system.posix_acl_default"].contains(&name) {
        return true;
    }
    let dropped: [&[u8]; 6] = [
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.SMACK64",
        b"trusted.overlay.",
        b"user.overlay.",
    ];
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    spaces.iter().any(|space| name.starts_with(space) && name.len() > space.len())
        && !dropped.iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses what cannot boot, with a word on what it seems to be.
pub(super) fn check_root(builder: &Builder) -> Result<(), ImportError> {
    if builder.has_executable() {
        let top = builder.top();
        if let [only] = top.as_slice()
            && !["bin", "sbin", "usr", "opt", "app"].contains(&only.as_str())
            && ["bin", "usr", "etc"].iter().any(|dir| builder.has(&format!("{only}/{dir}")))
        {
            return Err(ImportError::Nested(only.clone()));
        }
        return Ok(());
    }
    if builder.entries() == 1 {
        return Err(ImportError::NotARoot("it is empty"));
    }
    if builder.has("manifest.json") || builder.has("oci-layout") {
        return Err(ImportError::NotARoot(
            "it holds the layers of a container image, not a root file system; `docker export` \
             writes one",
        ));
    }
    Err(ImportError::NotARoot("it is no root file system: there is no program in it"))
}

/// Adds everything below `root`, in the order of names.
pub(super) fn from_dir(
    root: &Path,
    builder: &mut Builder,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    let failed = |source: rustix::io::Errno| ImportError::Read {
        path: root.display().to_string(),
        source: source.into(),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&dir).map_err(failed)?;
    let mut walk = Walk { builder, watch, links: BTreeMap::new() };
    let meta = walk.meta(&stat, format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
    walk.builder.directory(b"/", meta)?;
    let walked = walk.directory(&dir, b"");
    walked.map_err(|error| watch.blame(error))
}

struct Walk<'a> {
    builder: &'a mut Builder,
    watch: &'a mut Watch,
    /// First names of files that have several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<(), ImportError> {
        if is_pseudo(dir) {
            return Ok(());
        }
        for name in names(dir).map_err(|error| read_error(path, error))? {
            self.watch.going_on()?;
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(&name);
            self.entry(dir, OsStr::from_bytes(&name), &path)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<(), ImportError> {
        let failed = |error: rustix::io::Errno| read_error(path, error.into());
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return Ok(self.builder.hard_link(path, first)?);
            }
            self.links.insert(key, path.to_vec());
        }
        let by_fd = format!("/proc/self/fd/{}/", dir.as_raw_fd());
        let mut by_fd = by_fd.into_bytes();
        by_fd.extend(name.as_bytes());
        let meta = self.meta(&stat, OsStr::from_bytes(&by_fd));
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        match kind {
            FileType::RegularFile => {
                let file = self.open(dir, name, path, OFlags::NONBLOCK)?;
                let len = rustix::fs::fstat(&file).map_err(failed)?.st_size;
                let len = u64::try_from(len).unwrap_or(0);
                let cancel = self.watch.cancel.clone();
                let mut from = Cancellable::new(File::from(file), cancel);
                self.builder.file(path, meta, &mut from, len)?;
                self.watch.count(len, self.builder.entries());
            }
            FileType::Directory => {
                let inner = self.open(dir, name, path, OFlags::DIRECTORY)?;
                self.builder.directory(path, meta)?;
                self.directory(&inner, path)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                self.builder.symlink(path, meta, target.as_bytes())?;
            }
            FileType::CharacterDevice => {
                self.builder.special(path, meta, Special::Char { major, minor })?;
            }
            FileType::BlockDevice => {
                self.builder.special(path, meta, Special::Block { major, minor })?;
            }
            FileType::Fifo => self.builder.special(path, meta, Special::Fifo)?,
            FileType::Socket => self.builder.special(path, meta, Special::Socket)?,
            FileType::Unknown => {
                return Err(ImportError::NotARoot("it has a file of no known kind"));
            }
        }
        Ok(())
    }

    fn open(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        more: OFlags,
    ) -> Result<OwnedFd, ImportError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        rustix::fs::openat(dir, name, flags, Mode::empty())
            .map_err(|error| read_error(path, error.into()))
    }

    /// Attributes that cannot be read are left out: users may not read each other's.
    fn meta(&self, stat: &Stat, path: impl AsRef<OsStr>) -> Meta {
        let path = Path::new(path.as_ref());
        Meta {
            mode: mode_bits(stat.st_mode),
            uid: stat.st_uid,
            gid: stat.st_gid,
            #[allow(clippy::useless_conversion, reason = "its type differs between targets")]
            mtime: i64::from(stat.st_mtime),
            mtime_nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            xattrs: xattrs(path),
        }
    }
}

pub(super) fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0_u8; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(path, &mut list[..]) else { return BTreeMap::new() };
    let names = list[..len].split(|byte| *byte == 0).filter(|name| is_kept(name));
    names
        .filter_map(|name| {
            let mut value = vec![0_u8; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
            value.truncate(len);
            Some((name.to_vec(), value))
        })
        .collect()
}

/// Mounted there and no content: `/proc`, `/sys` and their like become empty directories.
fn is_pseudo(dir: &OwnedFd) -> bool {
    // proc, sysfs, devpts, cgroup, cgroup2, securityfs, debugfs, tracefs
    const KINDS: [u64; 8] = [
        0x9fa0,
        0x6265_6572,
        0x1cd1,
        0x0027_e0eb,
        0x6367_7270,
        0x7363_6673,
        0x6462_6720,
        0x7472_6163,
    ];
    rustix::fs::fstatfs(dir.as_fd())
        .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| KINDS.contains(&kind)))
}

fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = CStr::to_bytes(entry.file_name());
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_error(path: &[u8], source: io::Error) -> ImportError {
    ImportError::Read { path: String::from_utf8_lossy(path).into_owned(), source }
}
