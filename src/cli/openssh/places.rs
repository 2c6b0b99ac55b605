//! Where the files are: the user's own, ours, and those of each VM.

use std::path::{Path, PathBuf};

use super::table::{KEY, KNOWN_HOSTS};

/// Below it VMs have their names, for ssh as for the resolver.
pub(crate) const DOMAIN: &str = "vm";

#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The user's.
    pub(crate) config: PathBuf,
    /// What is included there.
    pub(crate) settings: PathBuf,
    /// A directory for each VM.
    pub(crate) of_hosts: PathBuf,
}

impl Places {
    /// `None` where the user has no home.
    pub(crate) fn find() -> Option<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = PathBuf::from(variable("HOME")?);
        let below = |name, default: &str| {
            variable(name).map_or_else(|| home.join(default), PathBuf::from).join("banger")
        };
        Some(Self {
            config: home.join(".ssh/config"),
            settings: below("XDG_CONFIG_HOME", ".config").join("ssh_config"),
            of_hosts: below("XDG_STATE_HOME", ".local/state").join("ssh"),
        })
    }

    pub(crate) fn key(&self, host: &str) -> PathBuf {
        self.of_hosts.join(host).join(KEY)
    }

    pub(crate) fn known_hosts(&self, host: &str) -> PathBuf {
        self.of_hosts.join(host).join(KNOWN_HOSTS)
    }

    pub(crate) fn of_hosts(&self) -> &Path {
        &self.of_hosts
    }
}
