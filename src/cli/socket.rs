//! Where the daemon listens.

use std::path::{Path, PathBuf};

const SYSTEM: &str = "/run/banger/bangerd.sock";

/// The system's daemon where there is one, else the user's own.
pub(crate) fn default_path() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    choose(Path::new(SYSTEM), runtime.map(PathBuf::from))
}

fn choose(system: &Path, runtime: Option<PathBuf>) -> PathBuf {
    match runtime {
        Some(runtime) if !system.exists() => runtime.join("banger/bangerd.sock"),
        _ => system.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_socket_wins_if_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let system = dir.path().join("bangerd.sock");
        let own = Some(PathBuf::from("/run/user/7"));
        assert_eq!(choose(&system, own.clone()), Path::new("/run/user/7/banger/bangerd.sock"));
        assert_eq!(choose(&system, None), system);
        std::fs::write(&system, "").unwrap();
        assert_eq!(choose(&system, own), system);
    }
}
