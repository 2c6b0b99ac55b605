//! Where things lie on an installed host. One place says it all.

use std::path::{Path, PathBuf};

/// Those that go together, and whether one is for users to call.
pub const PROGRAMS: [(&str, bool); 4] =
    [("banger", true), ("bangerd", false), ("banger-helper", false), ("banger-agent", false)];

pub(super) const DEFAULT_PREFIX: &str = "/usr/local";
/// Programs there are the package manager's to put and to take away, as the file system's hierarchy has it.
const PACKAGES_PREFIX: &str = "/usr";

/// Below `root`, which is `/` but in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
    prefix: PathBuf,
}

impl Places {
    #[must_use]
    pub fn new(root: &Path, prefix: &Path) -> Self {
        Self { root: root.to_owned(), prefix: prefix.to_owned() }
    }

    /// The path as it is from here, for one that is absolute on the host.
    #[must_use]
    pub fn at(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(below) => self.root.join(below),
            Err(_) => path.to_owned(),
        }
    }

    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Whether the programs are a package's. They are neither put nor removed here then.
    #[must_use]
    pub fn packaged(&self) -> bool {
        self.prefix == Path::new(PACKAGES_PREFIX)
    }

    /// The package's, if `from` is where its programs lie.
    pub(super) fn of_package(root: &Path, from: &Path) -> Option<PathBuf> {
        let package = Self::new(root, Path::new(PACKAGES_PREFIX));
        let there = package.at(&package.program("bangerd")).is_file();
        (there && package.at(&package.bin()) == from).then_some(package.prefix)
    }

    /// What users call.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.prefix.join("bin")
    }

    /// What the units start. The agent lies beside the daemon, which finds it there.
    #[must_use]
    pub fn lib(&self) -> PathBuf {
        self.prefix.join("lib/banger")
    }

    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let called = PROGRAMS.iter().any(|(known, called)| *known == name && *called);
        if called { self.bin().join(name) } else { self.lib().join(name) }
    }

    #[must_use]
    pub fn etc() -> PathBuf {
        PathBuf::from("/etc/banger")
    }

    #[must_use]
    pub fn config() -> PathBuf {
        Self::etc().join("config.toml")
    }

    #[must_use]
    pub fn record() -> PathBuf {
        Self::etc().join("install.toml")
    }

    #[must_use]
    pub fn units() -> PathBuf {
        PathBuf::from("/etc/systemd/system")
    }

    #[must_use]
    pub fn unit(name: &str) -> PathBuf {
        Self::units().join(name)
    }

    #[must_use]
    pub fn log() -> PathBuf {
        PathBuf::from("/var/log/banger")
    }
}
