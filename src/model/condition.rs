//! What is wrong with a VM that runs.

use std::fmt;

/// Seen, not asked for: it goes when its cause goes, and is never durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: ConditionKind,
    pub reason: String,
    pub since_unix_ms: u64,
    /// What ends it, or what its owner can do to end it.
    pub exit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionKind {
    /// Its health check has failed too often.
    Unhealthy,
}

impl ConditionKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
