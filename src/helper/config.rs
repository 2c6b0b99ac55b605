//! What the helper was told when it was started: the limits of everything it will ever touch.
//!
//! Nothing of this can come from the daemon. A directory in which root writes, and a program that
//! root starts, must be out of every other user's reach; that is checked here.

use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::model::Subnet;

/// A link name has 15 bytes at most (IFNAMSIZ), a slot number up to five.
const MAX_LINK_BYTES: usize = 15;
const MAX_TAP_PREFIX_BYTES: usize = 10;
/// Below it are the users of distributions (login.defs, systemd's uid table).
const LEAST_JAIL_UID: u32 = 65_536;
/// The last one is nobody's by POSIX, some of the others mean "none" to this or that program.
const LAST_JAIL_UID: u32 = 0x7fff_ffff;

#[derive(Clone, Debug)]
pub struct Config {
    pub socket: PathBuf,
    pub owner_uid: u32,
    pub owner_gid: u32,
    /// Supplementary groups of a VMM: kvm's, where it exists.
    pub groups: Vec<u32>,
    /// The daemon's; logs and loop devices' files lie below it. Canonical.
    pub state_dir: PathBuf,
    /// The helper's own: socket and lock.
    pub run_dir: PathBuf,
    pub bridge: String,
    pub tap_prefix: String,
    pub table: String,
    pub subnet: Subnet,
    /// Programs that may be started, as given and canonical.
    pub vmms: Vec<Vmm>,
    pub audit_log: PathBuf,
    pub cgroup_root: Option<PathBuf>,
    /// None: no VMM runs in a jail.
    pub jails: Option<Jails>,
}

/// What VMMs in jails are started with.
#[derive(Clone, Debug)]
pub struct Jails {
    pub jailer: Vmm,
    /// The first is that of the tap with slot number zero.
    pub uids: RangeInclusive<u32>,
    /// The daemon's run directory: sockets of VMs lie below it.
    pub vm_run_dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmm {
    pub given: PathBuf,
    pub canonical: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--{flag}: {why}")]
    Value { flag: &'static str, why: String },
    #[error("--{flag} {path}")]
    Io {
        flag: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

fn refuse(flag: &'static str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value { flag, why: why.into() }
}

impl Config {
    /// Checks what needs no look at the host.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.owner_uid == 0 {
            return Err(refuse("owner", "the daemon's user must not be root"));
        }
        for (flag, path) in [
            ("socket", &self.socket),
            ("state-dir", &self.state_dir),
            ("run-dir", &self.run_dir),
            ("audit-log", &self.audit_log),
        ] {
            if !is_plain_absolute(path) {
                return Err(refuse(flag, format!("{} is not a plain absolute path", show(path))));
            }
        }
        if self.state_dir.parent().is_none() {
            return Err(refuse("state-dir", "the root directory holds more than banger's state"));
        }
        let link = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let bridge = self.bridge.as_str();
        if bridge.is_empty()
            || bridge.len() > MAX_LINK_BYTES
            || matches!(bridge, "." | "..")
            || !bridge.chars().all(link)
        {
            return Err(refuse("bridge", format!("{bridge:?} is not a link name")));
        }
        let prefix = self.tap_prefix.as_str();
        // A digit at the end would make `bg1` + slot 2 the same link as `bg` + slot 12.
        if prefix.is_empty()
            || prefix.len() > MAX_TAP_PREFIX_BYTES
            || !prefix.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        {
            let why = format!("{prefix:?} is not 1 to {MAX_TAP_PREFIX_BYTES} of a-z and -");
            return Err(refuse("tap-prefix", why));
        }
        let slot = bridge.strip_prefix(prefix).unwrap_or_default();
        if !slot.is_empty() && slot.chars().all(|c| c.is_ascii_digit()) {
            return Err(refuse("bridge", format!("{bridge} could be a tap's name")));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if self.table.is_empty() || self.table.len() > 64 || !self.table.chars().all(word) {
            return Err(refuse("table", format!("{:?} is not a table name", self.table)));
        }
        let Some(jails) = &self.jails else { return Ok(()) };
        let (first, last) = (*jails.uids.start(), *jails.uids.end());
        if first < LEAST_JAIL_UID
            || last > LAST_JAIL_UID
            || first > last
            || jails.uids.contains(&self.owner_uid)
        {
            let why = format!(
                "{first}-{last} is not a range within {LEAST_JAIL_UID}-{LAST_JAIL_UID} without the owner"
            );
            return Err(refuse("jail-uids", why));
        }
        let dir = &jails.vm_run_dir;
        if !is_plain_absolute(dir) || dir.parent().is_none() {
            return Err(refuse(
                "vm-run-dir",
                format!("{} is not a plain absolute path", show(dir)),
            ));
        }
        Ok(())
    }

    /// Where the porch of each jail mounts its file system, in a mount namespace of its own.
    #[must_use]
    pub fn jail_dir(&self) -> PathBuf {
        self.run_dir.join("jail")
    }

    /// Whether files of that user are the owner's, or were given to one of the owner's VMs.
    #[must_use]
    pub fn is_owners(&self, uid: u32) -> bool {
        uid == self.owner_uid || self.is_jailed(uid)
    }

    #[must_use]
    pub fn is_jailed(&self, uid: u32) -> bool {
        self.jails.as_ref().is_some_and(|jails| jails.uids.contains(&uid))
    }

    /// Makes or checks the directories in which root writes.
    pub fn prepare(&self) -> Result<(), ConfigError> {
        use std::os::unix::fs::DirBuilderExt;
        let log_dir = self.audit_log.parent().unwrap_or_else(|| Path::new("/"));
        let socket_dir = self.socket.parent().unwrap_or_else(|| Path::new("/"));
        for (flag, dir, mode) in [
            ("run-dir", self.run_dir.as_path(), 0o711),
            ("socket", socket_dir, 0o711),
            ("audit-log", log_dir, 0o755),
            ("run-dir", &self.jail_dir(), 0o700),
        ] {
            let io = |source| ConfigError::Io { flag, path: dir.to_owned(), source };
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(io)?;
            trusted_path(dir).map_err(|why| refuse(flag, why))?;
        }
        Ok(())
    }

    /// The program to start for `asked`, if it is one of the configured ones and safe to start.
    pub fn vmm(&self, asked: &Path) -> Result<&Vmm, String> {
        let vmm = self.vmms.iter().find(|vmm| vmm.given == asked || vmm.canonical == asked);
        let vmm = vmm.ok_or_else(|| format!("{} is not a configured VMM", show(asked)))?;
        trusted_program(&vmm.canonical).map(|()| vmm)
    }

    /// What jails are started with, if the jailer is safe to start.
    pub fn safe_jails(&self) -> Result<&Jails, String> {
        let jails = self.jails.as_ref().ok_or("no jailer is configured")?;
        trusted_program(&jails.jailer.canonical).map(|()| jails)
    }
}

impl Vmm {
    /// A program that is not there yet keeps its given path and is refused when it is asked for.
    #[must_use]
    pub fn new(given: PathBuf) -> Self {
        let canonical = given.canonicalize().unwrap_or_else(|_| given.clone());
        Self { given, canonical }
    }
}

/// Absolute, and made of normal components only.
#[must_use]
pub(super) fn is_plain_absolute(path: &Path) -> bool {
    let mut components = path.components();
    let plain = components.next() == Some(Component::RootDir)
        && components.all(|component| matches!(component, Component::Normal(_)));
    // `components` forgives `//` and `/./`; what is passed on must be what was checked.
    plain && !path.as_os_str().as_encoded_bytes().contains(&0) && {
        let rebuilt: PathBuf = path.components().collect();
        rebuilt.as_os_str() == path.as_os_str()
    }
}

/// Whether nobody but root can change what `path` means: it and all directories above it.
fn trusted_path(path: &Path) -> Result<(), String> {
    let real = path.canonicalize().map_err(|error| format!("{}: {error}", show(path)))?;
    for part in real.ancestors() {
        let meta = std::fs::metadata(part).map_err(|error| format!("{}: {error}", show(part)))?;
        // In a sticky directory (/tmp) others can add names but not take ours away.
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0 && part != real;
        if meta.uid() != 0 {
            return Err(format!("{} does not belong to root", show(part)));
        }
        if meta.mode() & 0o022 != 0 && !sticky {
            return Err(format!("{} can be written by others than root", show(part)));
        }
    }
    Ok(())
}

/// A program that root may start on behalf of the owner.
pub(super) fn trusted_program(path: &Path) -> Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("{}: {error}", show(path)))?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Err(format!("{} is not a program", show(path)));
    }
    trusted_path(path)
}

pub(super) fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::helper) fn config() -> Config {
        Config {
            socket: "/run/banger-root/helper.sock".into(),
            owner_uid: 1000,
            owner_gid: 1000,
            groups: vec![],
            state_dir: "/var/lib/banger".into(),
            run_dir: "/run/banger-root".into(),
            bridge: "br-fc".into(),
            tap_prefix: "bgtap".into(),
            table: "banger".into(),
            subnet: "172.16.0.0/24".parse().unwrap(),
            vmms: vec![Vmm { given: "/usr/bin/qemu".into(), canonical: "/opt/q/qemu".into() }],
            audit_log: "/var/log/banger/helper.jsonl".into(),
            cgroup_root: None,
            jails: Some(Jails {
                jailer: Vmm::new("/usr/bin/jailer".into()),
                uids: 1_900_000_000..=1_900_004_095,
                vm_run_dir: "/run/banger".into(),
            }),
        }
    }

    fn jails(uids: RangeInclusive<u32>, vm_run_dir: &str) -> Config {
        let jails =
            config().jails.map(|jails| Jails { uids, vm_run_dir: vm_run_dir.into(), ..jails });
        Config { jails, ..config() }
    }

    #[test]
    fn limits_are_checked() {
        assert!(config().check().is_ok());
        let bad = [
            ("owner", Config { owner_uid: 0, ..config() }),
            ("state-dir", Config { state_dir: "/".into(), ..config() }),
            ("state-dir", Config { state_dir: "/var/../etc".into(), ..config() }),
            ("socket", Config { socket: "helper.sock".into(), ..config() }),
            ("bridge", Config { bridge: "a/b".into(), ..config() }),
            ("bridge", Config { bridge: "sixteen-bytes-xx".into(), ..config() }),
            ("bridge", Config { bridge: "bgtap0".into(), ..config() }),
            ("tap-prefix", Config { tap_prefix: "bg1".into(), ..config() }),
            ("tap-prefix", Config { tap_prefix: String::new(), ..config() }),
            ("table", Config { table: "a b".into(), ..config() }),
            ("jail-uids", jails(0..=4095, "/run/banger")),
            ("jail-uids", jails(1_900_000_000..=u32::MAX, "/run/banger")),
            ("jail-uids", jails(RangeInclusive::new(70_001, 70_000), "/run/banger")),
            ("jail-uids", Config { owner_uid: 1_900_000_003, ..config() }),
            ("vm-run-dir", jails(70_000..=70_001, "/run/../x")),
            ("vm-run-dir", jails(70_000..=70_001, "/")),
        ];
        for (flag, config) in bad {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("--{flag}")), "{error}");
        }
    }

    #[test]
    fn plain_paths_only() {
        assert!(is_plain_absolute(Path::new("/var/lib/x")));
        for bad in ["", "x", "/a/../b", "/a/./b", "/a//b", "/a/b/", "/a\0b"] {
            assert!(!is_plain_absolute(Path::new(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_program_in_reach_of_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("vmm");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        assert!(trusted_program(&program).unwrap_err().contains("not a program"));
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o757)).unwrap();
        let why = trusted_program(&program).unwrap_err();
        assert!(why.contains("others than root") || why.contains("belong to root"), "{why}");
        assert!(trusted_program(Path::new("/nonexistent/vmm")).is_err());
    }
}
