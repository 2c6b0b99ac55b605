//! The one error of all ports: which operation failed on which object, and what users can do.

use std::error::Error;
use std::fmt;

use crate::model::{Code, Failure, chain};

pub struct HostError {
    pub code: Code,
    /// A verb phrase: `create tap`.
    pub operation: &'static str,
    /// What it was done to: a path, a link name, a VM id.
    pub object: String,
    pub source: Option<Box<dyn Error + Send + Sync>>,
    pub hints: Vec<String>,
    /// Lines that belong to the story, such as the guest console's last ones.
    pub detail: Vec<String>,
}

impl HostError {
    #[must_use]
    pub fn new(code: Code, operation: &'static str, object: impl Into<String>) -> Self {
        let object = object.into();
        Self { code, operation, object, source: None, hints: vec![], detail: vec![] }
    }

    /// An I/O error gets the code that fits its kind.
    #[must_use]
    pub fn io(operation: &'static str, object: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let code = match source.kind() {
            K::StorageFull | K::QuotaExceeded => Code::NoSpace,
            K::NotFound => Code::NotFound,
            K::PermissionDenied => Code::Denied,
            _ => Code::Host,
        };
        Self::new(code, operation, object).because(source)
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn with_detail(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.detail.extend(lines);
        self
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.object)?;
        // Without a cause the code is all there is to say.
        if self.source.is_none() { write!(f, " ({})", self.code) } else { Ok(()) }
    }
}

impl fmt::Debug for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostError[{}] {}", self.code, chain(self))
    }
}

impl Error for HostError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<&HostError> for Failure {
    fn from(error: &HostError) -> Self {
        let mut failure = Self::from_error(error.code, error);
        failure.hints.clone_from(&error.hints);
        failure.detail.clone_from(&error.detail);
        failure
    }
}
