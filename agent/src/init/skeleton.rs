//! What the image has in `/root` (`.bashrc`, `.profile`) would vanish under the work disk: an empty
//! one gets a copy, once. Where the host has a seed of the image's, the disk has it already.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

/// Enough for skeletons, and short of copying a toolchain at boot.
const MAX_BYTES: u64 = 64 << 20;

/// Nothing but what mke2fs makes.
pub(super) fn is_fresh(disk: &Path) -> bool {
    fs::read_dir(disk).is_ok_and(|entries| {
        entries.filter_map(Result::ok).all(|entry| entry.file_name() == "lost+found")
    })
}

pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut left = MAX_BYTES;
    copy_dir(from, to, &mut left)
}

fn copy_dir(from: &Path, to: &Path, left: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        } else if meta.is_dir() {
            fs::create_dir(&target)?;
            copy_dir(&source, &target, left)?;
            owned_like(&target, &meta)?;
        } else if meta.is_file() {
            *left = left.checked_sub(meta.len()).ok_or_else(|| io::Error::other("over 64 MiB"))?;
            fs::copy(&source, &target)?;
            owned_like(&target, &meta)?;
        }
    }
    Ok(())
}

/// The owner first: a change of owner clears the set-id bits.
fn owned_like(target: &Path, meta: &fs::Metadata) -> io::Result<()> {
    chown(target, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(target, PermissionsExt::from_mode(meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_disk_gets_the_tree_and_a_used_one_is_not_fresh() {
        let dir = std::env::temp_dir().join(format!("banger-skeleton-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir_all(to.join("lost+found")).unwrap();
        fs::write(from.join(".bashrc"), b"x").unwrap();
        fs::set_permissions(from.join(".bashrc"), PermissionsExt::from_mode(0o640)).unwrap();
        fs::write(from.join("sub/f"), b"y").unwrap();
        symlink("nowhere", from.join("link")).unwrap();
        assert!(is_fresh(&to));
        copy(&from, &to).unwrap();
        assert!(!is_fresh(&to));
        assert_eq!(fs::read(to.join("sub/f")).unwrap(), b"y");
        assert_eq!(fs::metadata(to.join(".bashrc")).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nowhere"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
