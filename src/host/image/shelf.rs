//! The finished files: where they are, how they get there, and whether they are sound. Blocking.
//!
//! What is on the shelf never changes: it comes by rename, whole, under the name of its content,
//! and goes by unlink. A guest that has a file open keeps it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::bundle::Said;
use super::cpio::Cpio;
use super::ext4::{Built, digest_of, is_growable, uuid_of};
use super::kernel::Prepared;
use super::seed;
use super::workdir::{self, WorkDir};
use crate::host::disk::Superblock;
use crate::host::files::{TempFile, ensure_private_dir, gone, hash, is_stale_temp, sync_parent};
use crate::model::{Code, Digest, KernelFeatures, Size};
use crate::ports::{BaseImage, BootFiles, HostError, ImageUsage, KernelFile, KernelUsage};

#[derive(Debug)]
pub(super) struct Shelf {
    images: PathBuf,
    kernels: PathBuf,
    initrds: PathBuf,
    pub(super) tmp: PathBuf,
    agent: PathBuf,
    /// The agent's digest, as long as the file looks the same.
    agent_digest: Mutex<Option<(FileLook, Digest)>>,
}

/// Device, inode, size, time of last change.
type FileLook = (u64, u64, u64, i64, i64);

/// `manifest.json` beside a kernel.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    version: String,
    distro: String,
    arch: String,
    modules: Vec<String>,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// As Debian calls it.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

impl Shelf {
    pub(super) fn new(state: &Path, agent: PathBuf) -> Result<Self, HostError> {
        let shelf = Self {
            images: state.join("images"),
            kernels: state.join("kernels"),
            initrds: state.join("initrd"),
            tmp: state.join("tmp"),
            agent,
            agent_digest: Mutex::new(None),
        };
        for dir in [state, &shelf.images, &shelf.kernels, &shelf.initrds, &shelf.tmp] {
            ensure_private_dir(dir)?;
        }
        Ok(shelf)
    }

    pub(super) fn image(&self, digest: Digest) -> PathBuf {
        self.images.join(format!("{digest}.ext4"))
    }

    pub(super) fn open_image(&self, digest: Digest) -> Result<File, HostError> {
        self.check_image(digest)?;
        let path = self.image(digest);
        File::open(&path).map_err(|error| missing("use image", &path, error))
    }

    /// What a kernel says of itself, its file and that of its modules.
    pub(super) fn open_kernel(
        &self,
        digest: Digest,
        features: KernelFeatures,
    ) -> Result<(Said, [File; 2]), HostError> {
        let Manifest { version, distro, modules, .. } = self.check_kernel(digest)?;
        let open = |name: &str| {
            let path = self.kernel(digest).join(name);
            File::open(&path).map_err(|error| missing("use kernel", &path, error))
        };
        let files = [open(VMLINUX)?, open(MODULES)?];
        Ok((Said { version, distro, modules, features }, files))
    }

    fn seed(&self, image: Digest) -> PathBuf {
        self.images.join(format!("{image}.work"))
    }

    fn kernel(&self, digest: Digest) -> PathBuf {
        self.kernels.join(digest.to_string())
    }

    /// Takes a finished image in. One that is there already stays, unless it is damaged.
    pub(super) fn put_image(&self, made: &Path, built: Built) -> Result<(), HostError> {
        let target = self.image(built.digest);
        let failed = |error| HostError::io("publish image", target.display().to_string(), error);
        if self.check_image(built.digest).is_ok() {
            return Ok(());
        }
        let file = File::open(made).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(made, &target).and_then(|()| sync_parent(&target)).map_err(failed)
    }

    /// Takes in what new work disks of an image begin with. That image comes afterwards, so that
    /// none is without its seed.
    pub(super) fn put_seed(&self, made: &Path, image: Digest) -> Result<(), HostError> {
        let target = self.seed(image);
        let publish = || {
            let file = File::open(made)?;
            file.set_permissions(Permissions::from_mode(0o444))?;
            file.sync_all()?;
            fs::rename(made, &target).and_then(|()| sync_parent(&target))
        };
        publish().map_err(|error| {
            HostError::io("publish work seed", target.display().to_string(), error)
        })
    }

    /// The image's seed as large as a work disk is to be; made when first asked for.
    pub(super) fn work_seed(
        &self,
        image: Digest,
        size: Size,
    ) -> Result<Option<PathBuf>, HostError> {
        let seed = self.seed(image);
        let bytes = size.bytes().next_multiple_of(seed::BLOCK);
        let target = self.images.join(format!("{image}.work-{bytes}"));
        if target.exists() {
            return Ok(Some(target));
        }
        let failed = |error| HostError::io("make work seed", target.display().to_string(), error);
        let from = match File::open(&seed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let work = WorkDir::new(&self.tmp)?;
        let grown = work.file("seed");
        seed::grow(&from, &grown, bytes)?;
        fs::rename(&grown, &target).and_then(|()| sync_parent(&target)).map_err(failed)?;
        Ok(Some(target))
    }

    /// Takes a kernel in; made twice, it is there once.
    pub(super) fn put_kernel(
        &self,
        made: &Prepared,
        source: String,
    ) -> Result<KernelFile, HostError> {
        let digest = kernel_digest(made);
        let target = self.kernel(digest);
        let result = KernelFile {
            digest,
            version: made.version.clone(),
            distro: made.distro.clone(),
            arch: ARCH.into(),
            modules: u32::try_from(made.module_names.len()).unwrap_or(u32::MAX),
            size: Size::from_bytes((made.vmlinux.len() + made.modules.len()) as u64),
            source,
            features: made.features.clone(),
        };
        if self.check_kernel(digest).is_ok() {
            return Ok(result);
        }
        let work = WorkDir::new(&self.tmp)?;
        let dir = work.file("kernel");
        let write = || -> io::Result<()> {
            fs::create_dir(&dir)?;
            let manifest = manifest(made)?;
            for (name, bytes) in
                [(VMLINUX, &made.vmlinux), (MODULES, &made.modules), (MANIFEST, &manifest)]
            {
                let path = dir.join(name);
                fs::write(&path, bytes)?;
                let file = File::open(&path)?;
                file.set_permissions(Permissions::from_mode(0o444))?;
                file.sync_all()?;
            }
            // In the way can only be a damaged one, or that of somebody who was faster.
            let aside = work.file("replaced");
            if fs::rename(&dir, &target).is_err() && self.check_kernel(digest).is_err() {
                gone(fs::rename(&target, &aside))?;
                fs::rename(&dir, &target)?;
            }
            sync_parent(&target)
        };
        let written = write();
        written.map_err(|error| {
            HostError::io("publish kernel", target.display().to_string(), error)
        })?;
        Ok(result)
    }

    pub(super) fn base(&self, image: Digest) -> Result<BaseImage, HostError> {
        self.check_image(image)?;
        let path = self.image(image);
        let look = || -> io::Result<(u64, bool)> {
            let file = File::open(&path)?;
            Ok((file.metadata()?.len(), is_growable(&file)?))
        };
        let (bytes, growable) =
            look().map_err(|error| HostError::io("look at", path.display().to_string(), error))?;
        Ok(BaseImage { path, uuid: uuid_of(image), size: Size::from_bytes(bytes), growable })
    }

    pub(super) fn boot_files(&self, image: Digest, kernel: Digest) -> Result<BootFiles, HostError> {
        let base = self.base(image)?;
        self.check_kernel(kernel)?;
        Ok(BootFiles {
            base,
            kernel: self.kernel(kernel).join(VMLINUX),
            initrd: self.initrd(kernel)?,
        })
    }

    /// Size and UUID, which depends on the content; whether the content is right takes
    /// [`Self::verify_image`].
    fn check_image(&self, digest: Digest) -> Result<(), HostError> {
        let path = self.image(digest);
        let named = || path.display().to_string();
        let damaged = || {
            HostError::new(Code::Corrupt, "use image", named())
                .hint("delete the image and import it again")
        };
        let file = File::open(&path).map_err(|error| missing("use image", &path, error))?;
        let superblock = Superblock::read(&file).map_err(|error| damaged().because(error))?;
        let len = file.metadata().map_err(|error| HostError::io("look at", named(), error))?.len();
        if len != superblock.bytes() {
            let why = format!("it has {len} bytes instead of {}", superblock.bytes());
            return Err(damaged().because(why));
        }
        if superblock.uuid() != uuid_of(digest) {
            return Err(damaged().because("its content does not belong to its name"));
        }
        Ok(())
    }

    fn check_kernel(&self, digest: Digest) -> Result<Manifest, HostError> {
        let dir = self.kernel(digest);
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(|error| missing("use kernel", &path, error))?;
        let damaged = |path: &Path| {
            HostError::new(Code::Corrupt, "use kernel", path.display().to_string())
                .hint("remove the kernel and import it again")
        };
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| damaged(&path).because(error))?;
        for name in [VMLINUX, MODULES] {
            let path = dir.join(name);
            let meta = fs::metadata(&path).map_err(|error| missing("use kernel", &path, error))?;
            let wanted = manifest.files.get(name).map(|file| file.bytes);
            if Some(meta.len()) != wanted {
                let why = format!("it has {} bytes instead of {}", meta.len(), wanted.unwrap_or(0));
                return Err(damaged(&path).because(why));
            }
        }
        Ok(manifest)
    }

    /// Reads all of the image and compares it with its name.
    pub(super) fn verify_image(
        &self,
        digest: Digest,
        cancel: &CancellationToken,
    ) -> Result<(), HostError> {
        self.check_image(digest)?;
        let path = self.image(digest);
        let going_on = || {
            if cancel.is_cancelled() { Err(io::Error::other("cancelled")) } else { Ok(()) }
        };
        let found = File::open(&path).and_then(|file| digest_of(&file, going_on));
        let found = found
            .map_err(|error| HostError::io("read image", path.display().to_string(), error))?;
        if found == digest {
            return Ok(());
        }
        Err(HostError::new(Code::Corrupt, "verify image", path.display().to_string())
            .because("its content has changed")
            .hint("delete the image and import it again"))
    }

    /// Reads all of the kernel's files and compares them with its manifest.
    pub(super) fn verify_kernel(&self, digest: Digest) -> Result<(), HostError> {
        let manifest = self.check_kernel(digest)?;
        for (name, wanted) in &manifest.files {
            let path = self.kernel(digest).join(name);
            let found = hash_file(&path)?;
            if found.to_string() != wanted.sha256 {
                return Err(HostError::new(
                    Code::Corrupt,
                    "verify kernel",
                    path.display().to_string(),
                )
                .because("its content has changed")
                .hint("remove the kernel and import it again"));
            }
        }
        Ok(())
    }

    /// The initramfs of this kernel with the present agent; made when first asked for.
    fn initrd(&self, kernel: Digest) -> Result<PathBuf, HostError> {
        let agent = self.agent_digest()?;
        let path = self.initrds.join(format!("{}-{}.cpio", kernel.short(), agent.short()));
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > 0) {
            return Ok(path);
        }
        let modules = self.kernel(kernel).join(MODULES);
        let write = || -> io::Result<()> {
            let (agent, modules) = (fs::read(&self.agent)?, fs::read(modules)?);
            let mut cpio = Cpio::new(Vec::new());
            for dir in ["dev", "proc", "sys", "run"] {
                cpio.dir(dir)?;
            }
            // Where the kernel opens the first three files of init, before any /dev is mounted.
            cpio.char_device("dev/console", (5, 1))?;
            cpio.file("init", 0o755, &agent)?;
            let mut bytes = cpio.finish()?;
            bytes.extend(modules);
            let temp = TempFile::beside(&path);
            fs::write(temp.path(), bytes)?;
            let file = File::open(temp.path())?;
            file.set_permissions(Permissions::from_mode(0o444))?;
            file.sync_all()?;
            temp.publish(&path)
        };
        let written = write();
        written
            .map_err(|error| HostError::io("make initramfs", path.display().to_string(), error))?;
        Ok(path)
    }

    fn agent_digest(&self) -> Result<Digest, HostError> {
        let failed = |error| {
            HostError::io("read the guest agent", self.agent.display().to_string(), error)
                .hint("build it, or name the right file in the configuration")
        };
        let meta = fs::metadata(&self.agent).map_err(failed)?;
        if !meta.is_file() || meta.len() == 0 {
            let named = self.agent.display().to_string();
            return Err(HostError::new(Code::Corrupt, "use the guest agent", named)
                .because("it is empty or not a file"));
        }
        let look = (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        let known = self.agent_digest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((seen, digest)) = *known
            && seen == look
        {
            return Ok(digest);
        }
        drop(known);
        let digest = hash_file(&self.agent)?;
        let mut known = self.agent_digest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *known = Some((look, digest));
        Ok(digest)
    }

    /// Removes leftovers of work, images and kernels that are not `known`, and initramfs of
    /// kernels that are gone or with an older agent. Not while anything is being made: what is
    /// finished but not recorded yet would go.
    pub(super) fn sweep(&self, known: &[Digest]) -> Result<u32, HostError> {
        let failed = |error| HostError::io("sweep", self.tmp.display().to_string(), error);
        let mut removed =
            workdir::sweep(&self.tmp, "", |path| fs::remove_dir_all(path)).map_err(failed)?;
        for file in self.nameless(known).map_err(failed)? {
            let gone_now = match file.is_dir() {
                true => fs::remove_dir_all(&file),
                false => fs::remove_file(&file),
            };
            gone(gone_now).map_err(failed)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// What images take of the disk.
    pub(super) fn usage(&self) -> Result<BTreeMap<Digest, ImageUsage>, HostError> {
        let failed = |error| HostError::io("measure", self.images.display().to_string(), error);
        let mut all = BTreeMap::<_, ImageUsage>::new();
        for name in names(&self.images).map_err(failed)? {
            let (stem, kind) = name.split_once('.').unwrap_or((&name, ""));
            let Ok(digest) = stem.parse::<Digest>() else { continue };
            // One that goes meanwhile takes nothing.
            let blocks = fs::metadata(self.images.join(&name)).map_or(0, |meta| meta.blocks());
            let of = all.entry(digest).or_default();
            *(if kind == "ext4" { &mut of.file } else { &mut of.seeds }) += blocks * 512;
        }
        Ok(all)
    }

    /// What kernels take of the disk.
    pub(super) fn kernel_usage(&self) -> Result<BTreeMap<Digest, KernelUsage>, HostError> {
        let failed = |error| HostError::io("measure", self.kernels.display().to_string(), error);
        // One that goes meanwhile takes nothing.
        let taken = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.blocks()) * 512;
        let mut all = BTreeMap::<_, KernelUsage>::new();
        let initrds = names(&self.initrds).map_err(failed)?;
        for name in names(&self.kernels).map_err(failed)? {
            let Ok(digest) = name.parse::<Digest>() else { continue };
            let dir = self.kernel(digest);
            let files = [VMLINUX, MODULES, MANIFEST].map(|file| taken(&dir.join(file)));
            let short = digest.short();
            let of_it = initrds.iter().filter(|name| name.starts_with(&short));
            let initrds = of_it.map(|name| taken(&self.initrds.join(name))).sum();
            all.insert(digest, KernelUsage { files: files.iter().sum(), initrds });
        }
        Ok(all)
    }

    /// What [`Self::sweep`] would remove.
    pub(super) fn leftovers(&self, known: &[Digest]) -> Result<Vec<PathBuf>, HostError> {
        let failed = |error| HostError::io("list", self.tmp.display().to_string(), error);
        let mut found = workdir::leftovers(&self.tmp, "").map_err(failed)?;
        found.extend(self.nameless(known).map_err(failed)?);
        Ok(found)
    }

    /// Finished files of images and kernels that are not `known`, and initramfs that nothing boots from.
    fn nameless(&self, known: &[Digest]) -> io::Result<Vec<PathBuf>> {
        let mut found = vec![];
        for name in names(&self.images)? {
            if is_unknown(name.split('.').next().unwrap_or(&name), known) {
                found.push(self.images.join(name));
            }
        }
        for name in names(&self.kernels)? {
            if is_unknown(&name, known) {
                found.push(self.kernels.join(name));
            }
        }
        let agent = self.agent_digest().ok();
        let stale = |name: &str| {
            if name.starts_with('.') {
                return is_stale_temp(name);
            }
            let of_kernel = known.iter().any(|kernel| name.starts_with(&kernel.short()));
            let of_agent =
                agent.is_none_or(|agent| name.ends_with(&format!("-{}.cpio", agent.short())));
            !(of_kernel && of_agent)
        };
        let initrds = names(&self.initrds)?.into_iter().filter(|name| stale(name));
        found.extend(initrds.map(|name| self.initrds.join(name)));
        Ok(found)
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// Whether the name is a digest, and none of these. What is no digest is not ours.
fn is_unknown(name: &str, known: &[Digest]) -> bool {
    name.parse::<Digest>().is_ok_and(|digest| !known.contains(&digest))
}

const VMLINUX: &str = "vmlinux";
const MODULES: &str = "modules.cpio";
const MANIFEST: &str = "manifest.json";

fn missing(operation: &'static str, path: &Path, error: io::Error) -> HostError {
    let hint =
        if operation == "use image" { "import the image again" } else { "import the kernel again" };
    HostError::io(operation, path.display().to_string(), error).hint(hint)
}

pub(super) fn kernel_digest(made: &Prepared) -> Digest {
    let mut hash = Sha256::new();
    hash.update((made.vmlinux.len() as u64).to_le_bytes());
    hash.update(&made.vmlinux);
    hash.update(&made.modules);
    Digest(hash.finalize().into())
}

fn manifest(made: &Prepared) -> io::Result<Vec<u8>> {
    let file = |bytes: &[u8]| FileEntry {
        bytes: bytes.len() as u64,
        sha256: Digest(Sha256::digest(bytes).into()).to_string(),
    };
    let files = BTreeMap::from([
        (VMLINUX.to_owned(), file(&made.vmlinux)),
        (MODULES.to_owned(), file(&made.modules)),
    ]);
    let manifest = Manifest {
        format: 1,
        version: made.version.clone(),
        distro: made.distro.clone(),
        arch: ARCH.into(),
        modules: made.module_names.clone(),
        files,
    };
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    Ok(text)
}

fn hash_file(path: &Path) -> Result<Digest, HostError> {
    let hashed = File::open(path).and_then(|mut file| hash(&mut file));
    let (hash, _) =
        hashed.map_err(|error| HostError::io("read", path.display().to_string(), error))?;
    Ok(Digest(hash.finalize().into()))
}
