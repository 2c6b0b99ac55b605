//! Files of the owner's that every guest is given at its start: from where, to where, with which
//! rights. Pure: whether they are there is looked at when a guest starts.

use std::path::{Component, Path, PathBuf};

/// Of a file that was given none: what is synced is often secret.
const DEFAULT_MODE: u32 = 0o600;
const HOME: &str = "/root";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSync {
    pub host: PathBuf,
    /// Below the home of the guest's root.
    pub guest: PathBuf,
    /// Of a file; what is in a directory keeps its own.
    pub mode: u32,
}

/// As it is written in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSyncText {
    pub host: String,
    pub guest: String,
    pub mode: Option<String>,
}

impl FileSync {
    /// `home` is the owner's, for `~/` on the host's side.
    pub fn parse(text: &FileSyncText, home: Option<&Path>) -> Result<Self, String> {
        Ok(Self {
            host: host(&text.host, home).map_err(|why| format!("host {:?} {why}", text.host))?,
            guest: guest(&text.guest).map_err(|why| format!("guest {:?} {why}", text.guest))?,
            mode: mode(text.mode.as_deref())
                .ok_or_else(|| format!("mode {:?} is not octal up to 0777", text.mode))?,
        })
    }
}

fn host(text: &str, home: Option<&Path>) -> Result<PathBuf, &'static str> {
    let path = match text.strip_prefix("~/") {
        Some(below) => home.ok_or("needs HOME, which is not set")?.join(below),
        None if text.starts_with('~') => return Err("names another user's home"),
        None => PathBuf::from(text),
    };
    match () {
        () if !path.is_absolute() => Err("is neither absolute nor below ~/"),
        () if leads_up(&path) => Err("has .. in it"),
        () => Ok(path),
    }
}

fn guest(text: &str) -> Result<PathBuf, &'static str> {
    let below = match text.strip_prefix("~/") {
        Some(below) => Path::new(below),
        None if text.starts_with('~') => return Err("names another user's home"),
        None => Path::new(text).strip_prefix(HOME).map_err(|_| "is not below ~/ or /root")?,
    };
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    match () {
        () if leads_up(below) => Err("has .. in it"),
        () if !plain || below.as_os_str().is_empty() => Err("names no file below the home"),
        () => Ok(below.components().collect()),
    }
}

fn leads_up(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

fn mode(text: Option<&str>) -> Option<u32> {
    let Some(text) = text else { return Some(DEFAULT_MODE) };
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    octal.then(|| u32::from_str_radix(text, 8).ok())?.filter(|mode| *mode <= 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(host: &str, guest: &str, mode: Option<&str>) -> Result<FileSync, String> {
        let (host, guest) = (host.to_owned(), guest.to_owned());
        let text = FileSyncText { host, guest, mode: mode.map(str::to_owned) };
        FileSync::parse(&text, Some("/home/ann".as_ref()))
    }

    #[test]
    fn homes_are_those_of_either_side() {
        let sync = parse("~/.netrc", "~/.netrc", None).unwrap();
        let path = PathBuf::from("/home/ann/.netrc");
        assert_eq!(sync, FileSync { host: path, guest: ".netrc".into(), mode: 0o600 });
        let sync = parse("/etc/hosts", "/root/a//b", Some("0644")).unwrap();
        assert_eq!((sync.guest, sync.mode), ("a/b".into(), 0o644));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for (host, guest, mode, why) in [
            ("x", "~/x", None, "neither absolute"),
            ("~bob/x", "~/x", None, "another user"),
            ("/a/../b", "~/x", None, ".."),
            ("/x", "~bob/x", None, "another user"),
            ("/x", "x", None, "not below"),
            ("/x", "/etc/x", None, "not below"),
            ("/x", "/rootkit", None, "not below"),
            ("/x", "~/../x", None, ".."),
            ("/x", "~/", None, "no file"),
            ("/x", "/root", None, "no file"),
            ("/x", "~/x", Some("rw"), "octal"),
            ("/x", "~/x", Some("4755"), "octal"),
            ("/x", "~/x", Some(""), "octal"),
        ] {
            let refused = parse(host, guest, mode).unwrap_err();
            assert!(refused.contains(why), "{host} {guest} {mode:?}: {refused}");
        }
    }
}
