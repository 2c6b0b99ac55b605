//! A failure as users see it.

use std::error::Error;
use std::fmt;

use super::ids::OpId;

/// Crosses the wire and is printed once, at the edge: what failed and why, what may help, and
/// which operation it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// Operation and object, then the chain of causes; lower case, no full stop.
    pub message: String,
    pub hints: Vec<String>,
    /// Whether the same request may succeed later, unchanged.
    pub retryable: bool,
    pub op_id: Option<OpId>,
    /// Lines that belong to the story, such as the guest console's last ones.
    pub detail: Vec<String>,
}

impl Failure {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retryable = matches!(code, Code::Busy | Code::Overloaded | Code::HelperUnreachable);
        Self {
            code,
            message: message.into(),
            hints: vec![],
            retryable,
            op_id: None,
            detail: vec![],
        }
    }

    /// Prints `error` and all its sources.
    #[must_use]
    pub fn from_error(code: Code, error: &dyn Error) -> Self {
        Self::new(code, chain(error))
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn of(mut self, op_id: OpId) -> Self {
        self.op_id = Some(op_id);
        self
    }

    #[must_use]
    pub fn with_detail(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.detail.extend(lines);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// Stable: scripts match on the kebab-case form. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    Internal,
    Invalid,
    NotFound,
    Exists,
    Busy,
    Refused,
    Overloaded,
    Conflict,
    InUse,
    NoSpace,
    HelperUnreachable,
    Denied,
    GuestUnreachable,
    GuestDied,
    VmmMissing,
    Corrupt,
    Cancelled,
    Stuck,
    Deadline,
    Protocol,
    Host,
    AddressPoolFull,
    /// A VM failed so often that its policy gave up.
    CrashLoop,
    /// The daemon ended under it.
    Interrupted,
}

impl Code {
    pub const ALL: [Self; 24] = [
        Self::Internal,
        Self::Invalid,
        Self::NotFound,
        Self::Exists,
        Self::Busy,
        Self::Refused,
        Self::Overloaded,
        Self::Conflict,
        Self::InUse,
        Self::NoSpace,
        Self::HelperUnreachable,
        Self::Denied,
        Self::GuestUnreachable,
        Self::GuestDied,
        Self::VmmMissing,
        Self::Corrupt,
        Self::Cancelled,
        Self::Stuck,
        Self::Deadline,
        Self::Protocol,
        Self::Host,
        Self::AddressPoolFull,
        Self::CrashLoop,
        Self::Interrupted,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Exists => "exists",
            Self::Busy => "vm-busy",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::Conflict => "op-conflict",
            Self::InUse => "in-use",
            Self::NoSpace => "no-space",
            Self::HelperUnreachable => "helper-unreachable",
            Self::Denied => "denied",
            Self::GuestUnreachable => "guest-unreachable",
            Self::GuestDied => "guest-died",
            Self::VmmMissing => "vmm-missing",
            Self::Corrupt => "corrupt",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
            Self::Deadline => "deadline",
            Self::Protocol => "protocol",
            Self::Host => "host",
            Self::AddressPoolFull => "address-pool-full",
            Self::CrashLoop => "crash-loop",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Prints an error with all its sources; `Display` alone never repeats them.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
