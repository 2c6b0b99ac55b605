//! Collects what becomes a kernel directory. Blocking.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::super::cpio::Cpio;
use super::bzimage::{KernelError, vmlinux};
use super::config;
use super::deb::{self, DebError};
use super::elf::Elf;
use super::modules::{self, Catalogue};
use super::rpm::{self, RpmError};
use crate::model::{
    Code, KernelConfig, KernelFeature, KernelFeatures, KernelSupport, kernel_features, lack_text,
    lacking_for_every,
};
use crate::ports::{HostError, ProgressSink};

/// Everything of a kernel, ready to be written.
#[derive(Debug)]
pub(in crate::host::image) struct Prepared {
    pub(in crate::host::image) vmlinux: Vec<u8>,
    /// A cpio archive of `modules/NNN-name.ko`, in loading order; empty if there are none.
    pub(in crate::host::image) modules: Vec<u8>,
    pub(in crate::host::image) module_names: Vec<String>,
    pub(in crate::host::image) version: String,
    pub(in crate::host::image) distro: String,
    pub(in crate::host::image) features: KernelFeatures,
}

/// No kernel or module in a package is larger.
const LARGEST: u64 = 512 << 20;

/// Modules of a package, unpacked one after the other into one file: which ones are needed is
/// known only when all were seen.
struct Spill {
    file: File,
    at: u64,
    catalogue: Catalogue<(u64, u64)>,
}

impl Spill {
    fn new(file: File) -> Self {
        Self { file, at: 0, catalogue: Catalogue::new() }
    }

    fn add(&mut self, path: &str, packed: Vec<u8>) -> Result<(), HostError> {
        let contents =
            modules::unpacked(packed).map_err(|error| broken("unpack module", path, error))?;
        let len = contents.len() as u64;
        self.catalogue
            .add(path, (self.at, len), &contents)
            .map_err(|error| broken("read module", path, error))?;
        self.file
            .write_all(&contents)
            .map_err(|error| HostError::io("keep module", path, error))?;
        self.at += len;
        Ok(())
    }

    /// The modules to load as an archive, and their names.
    fn archive(mut self) -> Result<(Vec<u8>, Vec<String>), HostError> {
        let order = self.catalogue.order();
        if order.is_empty() {
            return Ok((vec![], vec![]));
        }
        let mut write = || -> io::Result<Vec<u8>> {
            let mut cpio = Cpio::new(Vec::new());
            cpio.dir("modules")?;
            for (number, (name, (at, len))) in order.iter().enumerate() {
                let mut contents = vec![0; usize::try_from(*len).map_err(io::Error::other)?];
                self.file.seek(SeekFrom::Start(*at))?;
                self.file.read_exact(&mut contents)?;
                cpio.file(&format!("modules/{:03}-{name}.ko", number * 10), 0o644, &contents)?;
            }
            cpio.finish()
        };
        let bytes = write().map_err(|error| HostError::io("archive", "modules", error))?;
        Ok((bytes, order.into_iter().map(|(name, _)| name).collect()))
    }
}

/// From packages of one kernel: some distributions have its modules in another than the kernel itself.
/// `spill` is an empty file for the modules.
pub(in crate::host::image) fn from_packages(
    paths: &[PathBuf],
    spill: File,
    progress: &ProgressSink,
    cancel: &CancellationToken,
) -> Result<Prepared, HostError> {
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let shown = shown.join(" ");
    let (mut found, mut depends) = (Found::new(spill), String::new());
    for path in paths {
        progress(match paths {
            [_] => "unpacking the package".into(),
            _ => format!("unpacking {}", path.file_name().unwrap_or_default().to_string_lossy()),
        });
        depends.push_str(&found.take_package(path, cancel)?);
    }
    let Some(kernel) = found.kernel.take() else { return Err(no_kernel(&shown, &depends)) };
    progress("unpacking the kernel".into());
    found.finish(&shown, kernel, progress)
}

struct Found {
    kernel: Option<Vec<u8>>,
    /// What the package says of how the kernel was configured.
    config: Option<KernelConfig>,
    version: Option<String>,
    spill: Spill,
}

impl Found {
    fn new(spill: File) -> Self {
        Self { kernel: None, config: None, version: None, spill: Spill::new(spill) }
    }

    /// Answers what the package depends on, if it says so.
    fn take_package(
        &mut self,
        path: &Path,
        cancel: &CancellationToken,
    ) -> Result<String, HostError> {
        let shown = path.display().to_string();
        let mut file = open(path)?;
        let mut magic = [0; 4];
        let is_rpm = file.read_exact(&mut magic).is_ok() && magic == rpm::MAGIC;
        if is_rpm {
            let failed = |error: RpmError| rpm_error(&shown, error);
            let mut files = rpm::files(&mut file).map_err(failed)?;
            while let Some(entry) = files.next().map_err(failed)? {
                going_on(cancel, &shown)?;
                self.take(&entry.name, &mut files.contents(), entry.size)?;
            }
            return Ok(String::new());
        }
        let failed = |error: DebError| deb_error(&shown, error);
        let control = deb::control(&mut file).map_err(failed)?;
        let mut tar = deb::data(&mut file).map_err(failed)?;
        while let Some(entry) = tar.next().map_err(|error| failed(error.into()))? {
            going_on(cancel, &shown)?;
            self.take(&entry.path, &mut tar.contents(), entry.size)?;
        }
        Ok(deb::field(&control, "Depends").unwrap_or_default().to_owned())
    }

    fn take(&mut self, path: &[u8], from: &mut impl Read, size: u64) -> Result<(), HostError> {
        let name = String::from_utf8_lossy(path).into_owned();
        let name = name.trim_start_matches("./").trim_start_matches('/');
        let in_tree = name.trim_start_matches("usr/").strip_prefix("lib/modules/");
        let version = in_tree.and_then(|rest| rest.split('/').next());
        let is_kernel = name.starts_with("boot/vmlinuz-")
            || name.starts_with("boot/vmlinux-")
            || (in_tree.is_some() && name.ends_with("/vmlinuz"));
        let is_module = in_tree.is_some() && modules::is_module(name);
        let is_list = in_tree.is_some() && name.ends_with("/modules.builtin");
        let is_config = name.starts_with("boot/config-")
            || in_tree.is_some_and(|rest| rest.split('/').skip(1).eq(["config"]));
        if !(is_kernel || is_module || is_list || is_config) || size == 0 {
            return Ok(());
        }
        if size > if is_config { config::LARGEST } else { LARGEST } {
            return Err(HostError::new(Code::Invalid, "unpack", name).because("it is too large"));
        }
        let mut bytes = Vec::new();
        let read = from.take(size).read_to_end(&mut bytes);
        let read = read.map_err(|error| broken("unpack", name, error))?;
        if (read as u64) < size {
            return Err(broken("unpack", name, io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        let version =
            version.or_else(|| name.strip_prefix("boot/")?.split_once('-').map(|(_, v)| v));
        if let Some(version) = version {
            let known = self.version.get_or_insert_with(|| version.to_owned());
            if known != version {
                return Err(HostError::new(Code::Invalid, "import kernel", name)
                    .because(format!("there are two kernels, {known} and {version}"))
                    .hint("name the packages of one of them"));
            }
        }
        if is_config {
            self.config = KernelConfig::parse(&String::from_utf8_lossy(&bytes));
        } else if is_kernel {
            self.kernel = Some(bytes);
        } else if is_list {
            self.spill.catalogue.built_in(&String::from_utf8_lossy(&bytes));
        } else {
            self.spill.add(name, bytes)?;
        }
        Ok(())
    }

    fn finish(
        self,
        shown: &str,
        kernel: Vec<u8>,
        progress: &ProgressSink,
    ) -> Result<Prepared, HostError> {
        let vmlinux = vmlinux(kernel).map_err(|error| kernel_error(shown, error))?;
        let config = self.config.or_else(|| config::embedded(&vmlinux));
        let catalogue = &self.spill.catalogue;
        let mut features = kernel_features(config.as_ref(), |module| catalogue.seen(module));
        set_pvh(&mut features, &vmlinux);
        let missing = lacking_for_every(&features);
        if !missing.is_empty() {
            return Err(HostError::new(Code::Invalid, "use kernel", shown)
                .because(format!("it {}", lack_text(&missing)))
                .hint("if its modules are in a package of their own, name that as well")
                .hint(
                    "take a kernel made for virtual machines, such as Debian's linux-image-cloud-*",
                ));
        }
        let banner = banner(&vmlinux);
        let version = self.version.or_else(|| banner.as_deref().and_then(version_in));
        let version = version.ok_or_else(|| {
            HostError::new(Code::Invalid, "use kernel", shown)
                .because("it does not say its version")
        })?;
        let (modules, module_names) = self.spill.archive()?;
        progress(format!("kernel {version} with {} modules", module_names.len()));
        let distro = banner.as_deref().map_or("unknown", distro_in).to_owned();
        Ok(Prepared { vmlinux, modules, module_names, version, distro, features })
    }
}

/// What the file itself tells, whatever is said of it.
pub(in crate::host::image) fn set_pvh(features: &mut KernelFeatures, vmlinux: &[u8]) {
    if let Ok(elf) = Elf::parse(vmlinux) {
        let pvh = if elf.has_pvh_entry() { KernelSupport::BuiltIn } else { KernelSupport::No };
        features.set(KernelFeature::Pvh, pvh);
    }
}

/// From a kernel file and, unless it has everything built in, its modules directory.
pub(in crate::host::image) fn from_files(
    kernel: &Path,
    modules_dir: Option<&Path>,
    spill: File,
    progress: &ProgressSink,
    cancel: &CancellationToken,
) -> Result<Prepared, HostError> {
    let shown = kernel.display().to_string();
    let mut bytes = Vec::new();
    let read = open(kernel)?.take(LARGEST).read_to_end(&mut bytes);
    read.map_err(|error| HostError::io("read kernel", &shown, error))?;
    let mut found = Found::new(spill);
    found.config = config::beside(kernel, modules_dir)?;
    if let Some(dir) = modules_dir {
        let list = dir.join("modules.builtin");
        match fs::read_to_string(&list) {
            Ok(text) => found.spill.catalogue.built_in(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(HostError::io("read", list.display().to_string(), error)),
        }
        // `<...>/lib/modules/6.1.0-50-cloud-amd64`
        found.version = dir
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
            .map(str::to_owned);
        collect(dir, &mut found.spill, cancel, 0)?;
    }
    found.finish(&shown, bytes, progress)
}

/// Adds all modules below `dir`, in the order of names. Links are not followed: `build` and
/// `source` lead to whole source trees.
fn collect(
    dir: &Path,
    spill: &mut Spill,
    cancel: &CancellationToken,
    depth: u32,
) -> Result<(), HostError> {
    let shown = dir.display().to_string();
    let failed = |error| HostError::io("read modules directory", &shown, error);
    let entries = fs::read_dir(dir).and_then(|dir| dir.collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        going_on(cancel, &shown)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        let name = path.display().to_string();
        if kind.is_dir() && depth < 16 {
            collect(&path, spill, cancel, depth + 1)?;
        } else if kind.is_file() && modules::is_module(&name) {
            let bytes = fs::read(&path).map_err(|error| HostError::io("read", &name, error))?;
            spill.add(&name, bytes)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, HostError> {
    let shown = path.display().to_string();
    let failed = |error| HostError::io("open", &shown, error);
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(HostError::new(Code::Invalid, "open", &shown).because("it is not a file"));
    }
    File::open(path).map_err(failed)
}

fn going_on(cancel: &CancellationToken, object: &str) -> Result<(), HostError> {
    if cancel.is_cancelled() {
        return Err(HostError::new(Code::Cancelled, "import kernel", object));
    }
    Ok(())
}

fn broken(
    operation: &'static str,
    object: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> HostError {
    HostError::new(Code::Corrupt, operation, object).because(error)
}

fn deb_error(object: &str, error: DebError) -> HostError {
    let code = match &error {
        DebError::NotDeb | DebError::Unpack(_) => Code::Invalid,
        DebError::CutShort | DebError::Tar(_) => Code::Corrupt,
        DebError::Read(_) => Code::Host,
    };
    HostError::new(code, "read package", object).because(error)
}

fn kernel_error(object: &str, error: KernelError) -> HostError {
    let code = match error {
        KernelError::Unpack(_) | KernelError::CutShort => Code::Corrupt,
        _ => Code::Invalid,
    };
    HostError::new(code, "use kernel", object).because(error)
}

fn rpm_error(object: &str, error: RpmError) -> HostError {
    let code = match &error {
        RpmError::NotRpm | RpmError::Form | RpmError::Unpack(_) => Code::Invalid,
        RpmError::CutShort => Code::Corrupt,
        RpmError::Read(_) => Code::Host,
    };
    HostError::new(code, "read package", object).because(error)
}

/// A package that only names the current kernel's package says which that is.
fn no_kernel(shown: &str, depends: &str) -> HostError {
    let error = HostError::new(Code::Invalid, "import kernel", shown);
    let real = depends
        .split([',', '|'])
        .filter_map(|package| package.split_whitespace().next())
        .find(|package| package.starts_with("linux-image-"));
    match real {
        Some(real) => error
            .because("there is no kernel in this package, it only depends on one")
            .hint(format!("apt-get download {real}")),
        None => error.because("there is no kernel in this package"),
    }
}

/// `Linux version 6.1.0-50-cloud-amd64 (...) ...`
fn banner(vmlinux: &[u8]) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    let mut from = 0;
    while let Some(found) = config::find(&vmlinux[from..], START) {
        let text = &vmlinux[from + found + START.len()..];
        let text = &text[..text.len().min(300)];
        // The same words stand in format strings too.
        if text.first().is_some_and(u8::is_ascii_digit) {
            let end = text.iter().position(|byte| [0, b'\n'].contains(byte)).unwrap_or(text.len());
            return Some(String::from_utf8_lossy(&text[..end]).into_owned());
        }
        from += found + START.len();
    }
    None
}

fn version_in(banner: &str) -> Option<String> {
    banner.split_whitespace().next().map(str::to_owned)
}

fn distro_in(banner: &str) -> &'static str {
    let banner = banner.to_ascii_lowercase();
    let known = ["debian", "ubuntu", "fedora", "alpine", "archlinux", "suse", "nixos"];
    known.into_iter().find(|name| banner.contains(name)).unwrap_or("unknown")
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
