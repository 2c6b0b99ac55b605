//! Files replaced as a whole: who reads one has the old text or the new one, whatever happens.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Nobody else's business, and ssh insists on it.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Makes `text` the content of the file, with mode and owner as they were; false if it was that
/// already. Where the file is a link, what it leads to is replaced.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<bool> {
    let path = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    match fs::read(&path) {
        Ok(old) if old == text => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    let new = beside(&path);
    let written =
        write(&new, text, fs::metadata(&path).ok().as_ref()).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        drop(fs::remove_file(&new)); // the first error is the one that counts
    }
    written.map(|()| true)
}

fn write(new: &Path, text: &[u8], old: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(new)?;
    if let Some(old) = old {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.write_all(text)?;
    file.sync_all()
}

/// Of this process alone.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".banger-{}", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_stay_links_are_followed_and_nothing_is_left_beside() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        assert!(replace(&link, b"new").unwrap());
        assert!(!replace(&link, b"new").unwrap(), "it was that already");
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let made = dir.path().join("a/b/c");
        assert!(replace(&made, b"x").unwrap());
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o7777, FILE_MODE);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mode() & 0o7777, DIR_MODE);
        fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(replace(&dir.path().join("dir"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "nothing beside");
    }
}
