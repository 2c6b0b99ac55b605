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
const FORMAT: &str = "1";

/// Of every template; a copy gets its own.
const UUID: &str = "62616e67-6572-4000-8000-74656d706c74";

/// Below this mke2fs leaves the journal out.
const SMALLEST: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Templates {
    dir: PathBuf,
}

impl Templates {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes `target`, an empty ext4 file system with this UUID, out of nothing visible: it is
    /// whole when it appears. A file that is there already is left alone.
    pub(super) fn make_disk(
        &self,
        target: &Path,
        size: Size,
        uuid: [u8; 16],
    ) -> Result<(), HostError> {
        let named = || target.display().to_string();
        let failed = |error| HostError::io("make disk", named(), error);
        let template = self.ensure(size)?;
        let temp = TempFile::beside(target);
        let copy = sparse::copy(&template, temp.path()).map_err(failed)?;
        Superblock::read(&copy)
            .and_then(|superblock| superblock.change_uuid(&copy, uuid))
            .map_err(|error| HostError::new(Code::Host, "make disk", named()).because(error))?;
        copy.sync_all().map_err(failed)?;
        // A link never replaces: whoever comes second finds the first one's disk.
        match fs::hard_link(temp.path(), target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
        .and_then(|()| sync_parent(target))
        .map_err(failed)
    }

    fn ensure(&self, size: Size) -> Result<File, HostError> {
        if size.bytes() < SMALLEST {
            return Err(HostError::new(Code::Invalid, "make disk of", size.to_string())
                .because("a disk has at least 8M"));
        }
        let bytes = size.bytes().next_multiple_of(4096);
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
        format(temp.path())?;
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

/// A file just made reads as zero, so the inode tables and the journal need no zeroing, neither
/// now nor by the guest's kernel later. mke2fs before 1.47 does not know that option; then the
/// guest zeroes them lazily.
fn format(path: &Path) -> Result<(), HostError> {
    let run = |extended: &str| {
        #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
        Command::new("mke2fs")
            .env("PATH", SYSTEM_PATH)
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
            .args(["-O", "metadata_csum,metadata_csum_seed,64bit", "-U", UUID])
            .args(["-E", &format!("{extended},nodiscard,hash_seed={UUID}")])
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
