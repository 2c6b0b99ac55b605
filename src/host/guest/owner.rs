//! Who the owner of this host is to guests: a key that opens all of them, and a name for git.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::PrivateKey;

use super::keys::make_pair;

/// The public half of the installation's key, which is made if it is not there: for clients of the
/// owner's own, which do not ask the daemon.
pub fn owner_key(path: &Path) -> io::Result<String> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        text => text?,
    };
    let key = PrivateKey::from_openssh(&text).map_err(io::Error::other)?;
    key.public_key().to_openssh().map_err(io::Error::other)
}

fn make(path: &Path) -> io::Result<String> {
    let (private, public) = make_pair().map_err(io::Error::other)?;
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let write = |path: &Path, mode, text: &str| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all())
    };
    let beside = path.with_extension("pub");
    drop(fs::remove_file(&beside)); // of a key that is no more
    write(&beside, 0o644, &format!("{public}\n"))?;
    write(path, 0o600, &private)?;
    Ok(private)
}

/// Name and address, if git knows both.
#[must_use]
pub fn git_identity() -> Option<(String, String)> {
    let ask = |key: &str| {
        #[allow(clippy::disallowed_methods, reason = "at the daemon's start, before its actors")]
        let mut git = std::process::Command::new("git");
        let said = git.args(["config", "--global", "--get", key]).output().ok()?;
        let text = String::from_utf8(said.stdout).ok()?;
        let text = text.trim();
        (said.status.success() && !text.is_empty()).then(|| text.to_owned())
    };
    Some((ask("user.name")?, ask("user.email")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh/id_ed25519");
        let public = owner_key(&path).unwrap();
        assert!(public.starts_with("ssh-ed25519 "));
        assert_eq!(owner_key(&path).unwrap(), public);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let beside = fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(beside.trim(), public);
        fs::write(&path, "no key").unwrap();
        assert!(owner_key(&path).is_err(), "somebody's file is not replaced");
    }
}
