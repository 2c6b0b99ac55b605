//! One daemon per state directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Held for the life of the process; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(super) struct StateLock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("open lock file {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("another bangerd uses the state directory {dir}")]
    Held { dir: PathBuf },
    #[error("lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: nix::Error,
    },
}

pub(super) fn acquire(state_dir: &Path) -> Result<StateLock, LockError> {
    let path = state_dir.join("bangerd.lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path);
    let file = file.map_err(|source| LockError::Open { path: path.clone(), source })?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::Error::EWOULDBLOCK)) => {
            return Err(LockError::Held { dir: state_dir.to_owned() });
        }
        Err((_, source)) => return Err(LockError::Lock { path, source }),
    };
    // For people who look; nothing reads it.
    let pid = std::process::id();
    if lock.set_len(0).and_then(|()| writeln!(lock, "{pid}")).is_err() {
        tracing::debug!("pid not written to the lock file");
    }
    Ok(StateLock(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        let first = acquire(dir.path()).unwrap();
        assert!(matches!(acquire(dir.path()), Err(LockError::Held { .. })));
        drop(first);
        assert!(acquire(dir.path()).is_ok());
    }
}
