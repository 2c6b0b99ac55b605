//! Empty ext4 file systems, one per size, made once by mke2fs and copied ever after.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sparse;
use super::superblock::Superblock;
use crate::host::files::{
    SYSTEM_PATH, TempFile, ensure_private_dir, gone, is_stale_temp, sync_parent,
};
use crate::model::{Code, Size};
use crate::ports::HostError;

/// Part of every template's name: raise it when the arguments below change.
const FORMAT: &str = "2";

/// Of every template; a copy gets its own.
const UUID: &str = "62616e67-6572-4000-8000-74656d706c74";

/// Below this mke2fs leaves the journal out.
const SMALLEST: u64 = 8 << 20;

const BLOCK: u64 = 4096;

/// How many times its size a disk can grow before the kernel has to change its layout. mke2fs
/// prepares for 1024 times, which takes 4 MiB in 1024 blocks of every disk: most of what a new VM
/// would have to copy and, later, to free.
const GROWTH: u64 = 16;

#[derive(Debug)]
pub(super) struct Templates {
    dir: PathBuf,
}

impl Templates {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes an empty ext4 file system with this UUID that becomes `target`, not yet there nor
    /// durable.
    pub(super) fn draft(
        &self,
        target: &Path,
        size: Size,
        uuid: [u8; 16],
    ) -> Result<Draft, HostError> {
        let named = || target.display().to_string();
        let template = self.ensure(size)?;
        let temp = TempFile::beside(target);
        let copy = sparse::copy(&template, temp.path())
            .map_err(|error| HostError::io("make disk", named(), error))?;
        Superblock::read(&copy)
            .and_then(|superblock| superblock.change_uuid(&copy, uuid))
            .map_err(|error| HostError::new(Code::Host, "make disk", named()).because(error))?;
        Ok(Draft::new(target, temp, copy))
    }

    fn ensure(&self, size: Size) -> Result<File, HostError> {
        if size.bytes() < SMALLEST {
            return Err(HostError::new(Code::Invalid, "make disk of", size.to_string())
                .because("a disk has at least 8M"));
        }
        let bytes = size.bytes().next_multiple_of(BLOCK);
        let path = self.dir.join(format!("ext4-{bytes}-v{FORMAT}.img"));
        let failed = |error| HostError::io("make disk template", path.display().to_string(), error);
        match File::open(&path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        ensure_private_dir(&self.dir)?;
        let temp = TempFile::beside(&path);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(temp.path())
            .map_err(failed)?;
        file.set_len(bytes).map_err(failed)?;
        format(temp.path(), bytes / BLOCK)?;
        file.sync_all().map_err(failed)?;
        temp.publish(&path).map_err(failed)?;
        Ok(file)
    }

    pub(super) fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_stale_temp) {
                gone(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }
}

/// A copy of the disk `from` that becomes `target`, not yet there nor durable.
pub(super) fn copy(from: &Path, target: &Path) -> Result<Draft, HostError> {
    let failed = |error| HostError::io("copy disk", from.display().to_string(), error);
    let temp = TempFile::beside(target);
    let file = sparse::copy(&File::open(from).map_err(failed)?, temp.path()).map_err(failed)?;
    Ok(Draft::new(target, temp, file))
}

/// A disk under a temporary name, which goes with it.
#[derive(Debug)]
pub(super) struct Draft {
    target: PathBuf,
    temp: TempFile,
    file: File,
}

/// Makes drafts of one directory appear, each of them whole. A file that is there already is left
/// alone: whoever comes second finds the first one's disk.
pub(super) fn publish(drafts: &[Draft]) -> Result<(), HostError> {
    // Side by side, for the file system gathers syncs that wait at the same time into one.
    std::thread::scope(|scope| {
        let syncs = drafts.iter().map(|draft| scope.spawn(|| draft.file.sync_all()));
        for (sync, draft) in syncs.collect::<Vec<_>>().into_iter().zip(drafts) {
            let synced = sync.join().unwrap_or_else(|_| Err(io::Error::other("the sync panicked")));
            synced.map_err(|error| draft.failed(error))?;
        }
        Ok(())
    })?;
    for draft in drafts {
        match fs::hard_link(draft.temp.path(), &draft.target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(draft.failed(error));
            }
            _ => {}
        }
    }
    match drafts.first() {
        Some(draft) => sync_parent(&draft.target).map_err(|error| draft.failed(error)),
        None => Ok(()),
    }
}

impl Draft {
    pub(super) fn new(target: &Path, temp: TempFile, file: File) -> Self {
        Self { target: target.to_owned(), temp, file }
    }

    fn failed(&self, error: io::Error) -> HostError {
        HostError::io("make disk", self.target.display().to_string(), error)
    }
}

/// A file just made reads as zero, so the inode tables and the journal need no zeroing, neither
/// now nor by the guest's kernel later. mke2fs before 1.47 does not know that option; then the
/// guest zeroes them lazily.
fn format(path: &Path, blocks: u64) -> Result<(), HostError> {
    let most = blocks.saturating_mul(GROWTH).min(u64::from(u32::MAX));
    let run = |extended: &str| {
        #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
        Command::new("mke2fs")
            .env("PATH", SYSTEM_PATH)
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", &BLOCK.to_string()])
            .args(["-O", "metadata_csum,metadata_csum_seed,64bit", "-U", UUID])
            .args(["-E", &format!("{extended},nodiscard,hash_seed={UUID},resize={most}")])
            .arg(path)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                HostError::io("run", "mke2fs", error).hint("install the package e2fsprogs")
            })
    };
    let mut output = run("assume_storage_prezeroed=1")?;
    if !output.status.success() {
        output = run("lazy_itable_init=1,lazy_journal_init=1")?;
    }
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let code = if said.contains("No space left on device") { Code::NoSpace } else { Code::Host };
    Err(HostError::new(code, "make disk template", path.display().to_string()).because(said))
}
