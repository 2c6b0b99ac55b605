//! Why a copy failed: at this end, at the other, or between them.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// At this end.
    #[error("{what} {}", path.display())]
    Here {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// At this end, without an object of the system's.
    #[error("{}: {why}", path.display())]
    Refused { path: PathBuf, why: &'static str },
    /// In the words of the other end.
    #[error("{0}")]
    There(String),
    /// Nobody is at the other end any more.
    #[error("the connection ended")]
    Broken(#[source] io::Error),
    #[error("the other end does not keep to the protocol: {0}")]
    Nonsense(&'static str),
}

impl CopyError {
    pub(crate) fn refused(path: impl Into<PathBuf>, why: &'static str) -> Self {
        Self::Refused { path: path.into(), why }
    }

    /// For the other end: with its causes, on one line.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Here { what, path, source } => {
                format!("{what} {}: {}", path.display(), describe(source))
            }
            other => other.to_string(),
        }
    }
}

/// Without the number that the library adds.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Names what a system call was about.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, CopyError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, CopyError> {
        self.map_err(|error| CopyError::Here { what, path: path.to_owned(), source: error.into() })
    }
}
