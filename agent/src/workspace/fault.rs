//! Why a transfer ends early: the host has gone, or it is refused with a reason that it can tell.

use std::io;

use banger_agent::contract::workspace::{Refusal, TalkError};

pub(super) type Result<T> = std::result::Result<T, Fault>;

#[derive(Debug)]
pub(super) enum Fault {
    Left,
    Refused { code: Refusal, message: String },
}

impl Fault {
    pub(super) fn path(message: String) -> Self {
        Self::Refused { code: Refusal::Path, message }
    }
}

impl From<TalkError> for Fault {
    fn from(error: TalkError) -> Self {
        Self::Refused { code: Refusal::Failed, message: error.to_string() }
    }
}

/// Names the operation and the object of an error of the system.
pub(super) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let code = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::NoSpace,
                _ => Refusal::Failed,
            };
            Fault::Refused { code, message: format!("{}: {error}", what()) }
        })
    }
}
