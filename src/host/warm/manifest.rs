//! What a snapshot's directory says of itself: for what it is, and which files of which size it
//! has. Written last, so a directory without one is half made.
//!
//! A snapshot is good for one boot of the host: that is what holds its processor, its kernel and
//! its clocks together, and its files need not be synced, for nothing of them is used after a
//! crash.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::model::Digest;
use crate::ports::Likeness;

pub(super) const NAME: &str = "manifest";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) host_boot: String,
    pub(super) image: String,
    pub(super) kernel: String,
    /// By name, sorted.
    files: Vec<(String, u64)>,
}

pub(super) fn host_boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// The name of the directory. A change of the likeness's fields, or of what they mean, makes
/// another.
pub(super) fn key(like: &Likeness, host_boot: &str) -> Digest {
    let Likeness {
        image,
        kernel,
        init,
        initrd,
        vcpu,
        memory_mib,
        root,
        console,
        disk,
        work_disk,
        vmm,
    } = like;
    let initrd = initrd.file_name().unwrap_or_default().display();
    let text = format!(
        "{image}\n{kernel}\n{init}\n{initrd}\n{vcpu}\n{memory_mib}\n{root}\n{console}\n{}\n{}\n{vmm}\n{host_boot}\n",
        disk.bytes(),
        work_disk.bytes()
    );
    Digest(Sha256::digest(text).into())
}

impl Manifest {
    /// Of the files that are there now.
    pub(super) fn of(dir: &Path, like: &Likeness, host_boot: String) -> io::Result<Self> {
        let (image, kernel) = (like.image.to_string(), like.kernel.to_string());
        Ok(Self { host_boot, image, kernel, files: files(dir)? })
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text =
            format!("boot {}\nimage {}\nkernel {}\n", self.host_boot, self.image, self.kernel);
        for (name, bytes) in &self.files {
            text.push_str(&format!("file {bytes} {name}\n"));
        }
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join(NAME))?;
        file.write_all(text.as_bytes())
    }

    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(dir.join(NAME))?;
        let mut manifest = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("boot", id)) => id.clone_into(&mut manifest.host_boot),
                Some(("image", digest)) => digest.clone_into(&mut manifest.image),
                Some(("kernel", digest)) => digest.clone_into(&mut manifest.kernel),
                Some(("file", rest)) => {
                    let entry = rest
                        .split_once(' ')
                        .and_then(|(bytes, name)| Some((name.to_owned(), bytes.parse().ok()?)));
                    manifest.files.push(entry.ok_or(io::ErrorKind::InvalidData)?);
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(manifest)
    }

    /// Whether the files are those that were kept, as far as names and sizes tell.
    pub(super) fn fits(&self, dir: &Path) -> io::Result<bool> {
        Ok(files(dir)? == self.files)
    }
}

fn files(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = vec![];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != NAME {
            files.push((name, entry.metadata()?.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}
