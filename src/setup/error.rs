//! Why something could not be put in place.

use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{operation} {object}")]
    Io {
        operation: &'static str,
        object: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{command} failed: {said}")]
    Command { command: String, said: String },
    #[error("{why}")]
    Refused { why: String, hint: Option<String> },
}

impl SetupError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let object = path.display().to_string();
        move |source| Self::Io { operation, object, source }
    }

    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), hint: None }
    }

    pub(super) fn hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Refused { why, .. } => Self::Refused { why, hint: Some(text.into()) },
            other => other,
        }
    }

    /// The way out, where one is known.
    #[must_use]
    pub fn way_out(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
