//! Leaving the initramfs: the new root becomes `/`, what the initramfs held is freed, and the
//! image's own init becomes PID 1.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use banger_agent::contract::drive::Boot;
use banger_agent::contract::image::Init;
use nix::mount::{MsFlags, mount};
use nix::unistd::{access, chdir, chroot, execve};

use super::boot::restore_signals;
use super::mounts::{KERNEL_MOUNTS, NEW_ROOT};
use crate::error::{Context as _, Result};
use crate::log;

/// In the order in which they are preferred.
const INITS: [&str; 4] =
    ["/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/etc/init"];

pub(super) fn switch_root() -> Result<()> {
    for dir in KERNEL_MOUNTS {
        let (from, to) = (Path::new("/").join(dir), Path::new(NEW_ROOT).join(dir));
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .context(|| format!("move {}", from.display()))?;
    }
    if let Ok(meta) = fs::metadata("/") {
        free_below(Path::new("/"), meta.dev());
    }
    chdir(NEW_ROOT).context(|| format!("enter {NEW_ROOT}"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context(|| "move the new root".into())?;
    chroot(".").context(|| "change root".into())?;
    chdir("/").context(|| "enter the new root".into())
}

/// The initramfs is memory. Whatever is mounted in it belongs to another device and stays.
fn free_below(dir: &Path, device: u64) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(std::result::Result::ok) {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.dev() != device => {}
            Ok(meta) if meta.is_dir() => {
                free_below(&path, device);
                drop(fs::remove_dir(&path));
            }
            Ok(_) => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}

pub(super) fn find_init(wanted: &Init) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| path.is_file() && access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    let mut inits = INITS.iter().map(PathBuf::from).filter(runs);
    match wanted {
        Init::Any => inits.next(),
        // Elsewhere it lies in many an image because something depends on it.
        Init::Systemd => inits.next().filter(|path| {
            path == Path::new(INITS[0])
                && fs::canonicalize(path).is_ok_and(|program| program.ends_with("systemd"))
        }),
        Init::Program(program) => Some(PathBuf::from(program)).filter(runs),
    }
}

/// Returns only if the image's init cannot be executed.
pub(super) fn exec_init(path: &Path, boot: &Boot) {
    log::debug(format_args!("handing over to {}", path.display()));
    restore_signals();
    let Ok(program) = CString::new(path.as_os_str().as_bytes()) else {
        return;
    };
    let mut env: Vec<CString> = [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    .map(CStr::to_owned)
    .to_vec();
    // One that the image was made to run knows its image's variables; the last of a name counts for
    // some programs and the first for others.
    if let Init::Program(_) = &boot.image.init {
        for (name, value) in &boot.guest.env {
            let prefix = format!("{name}=");
            env.retain(|known| !known.to_bytes().starts_with(prefix.as_bytes()));
            env.extend(CString::new(format!("{prefix}{value}")));
        }
    }
    let Err(errno) = execve(&program, &[&program], &env);
    log::line(format_args!("cannot execute {}: {}; staying as init", path.display(), errno.desc()));
}
