//! Kernel modules: the initramfs carries those this kernel needs, numbered in the order of their
//! dependencies (`/modules/010-virtio.ko`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::log;

const DIR: &str = "/modules";

/// A module that cannot be inserted is logged and passed over: what it was needed for will say
/// so by itself, and many are not needed by every machine.
pub(super) fn insert_all() {
    for path in in_order(Path::new(DIR)) {
        let inserted = File::open(&path)
            .map_err(|error| error.to_string())
            .and_then(|file| insert(&file).map_err(|errno| errno.desc().to_owned()));
        match inserted {
            Ok(()) => log::debug(format_args!("module {}", path.display())),
            Err(why) => log::line(format_args!("module {}: {why}", path.display())),
        }
    }
}

fn insert(file: &File) -> Result<(), Errno> {
    match finit_module(file, c"", ModuleInitFlags::empty()) {
        // Built in or there already; a driver without a device.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn in_order(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ko"))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_decides_and_other_files_are_left_alone() {
        let dir = std::env::temp_dir().join(format!("banger-modules-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for name in ["020-b.ko", "000-z.ko", "010-a.ko", "modules.dep"] {
            fs::write(dir.join(name), b"").unwrap();
        }
        let names: Vec<String> = in_order(&dir)
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(names, ["000-z.ko", "010-a.ko", "020-b.ko"]);
        assert!(in_order(&dir).is_empty());
    }
}
