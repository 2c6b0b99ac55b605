//! What can end a boot or a server: which operation, on which object, and why.

use std::fmt;
use std::io;

use banger_agent::contract::drive::DriveError;

pub(crate) type Result<T> = std::result::Result<T, AgentError>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("read config drive {device}")]
    Drive {
        device: String,
        #[source]
        source: DriveError,
    },
    #[error("{what}")]
    Ssh {
        what: &'static str,
        #[source]
        source: russh::keys::Error,
    },
    #[error("{0}")]
    Missing(String),
}

/// Names the operation that an I/O or system call error belongs to.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| AgentError::Io { what: what(), source: source.into() })
    }
}

/// An error with its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
