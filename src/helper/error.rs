//! The helper's one error: which operation failed on which object.

use std::error::Error;

use crate::model::{Code, chain};

#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}")]
pub struct Trouble {
    pub code: Code,
    /// A verb phrase: `create bridge`.
    pub operation: &'static str,
    pub object: String,
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Trouble {
    #[must_use]
    pub fn new(code: Code, operation: &'static str, object: impl Into<String>) -> Self {
        Self { code, operation, object: object.into(), source: None }
    }

    #[must_use]
    pub fn io(operation: &'static str, object: impl Into<String>, error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let code = match error.kind() {
            K::NotFound => Code::NotFound,
            K::StorageFull | K::QuotaExceeded => Code::NoSpace,
            _ => Code::Host,
        };
        Self::new(code, operation, object).because(error)
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With all causes; ready for the wire.
    #[must_use]
    pub fn message(&self) -> String {
        chain(self)
    }
}
