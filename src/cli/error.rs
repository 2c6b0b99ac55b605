//! Failures as the CLI prints them: one sentence, the operation, details, hints.
//!
//! The daemon's failures and the CLI's own get their kind, which decides the exit code, here and
//! nowhere else.

use std::error::Error;
use std::fmt;

use super::exit::Exit;
use crate::model::{OpId, chain};
use crate::wire::reply::FailureInfo;

#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    /// What failed and why; lower case, no full stop.
    pub(crate) message: String,
    /// The kebab-case code of a daemon's failure.
    pub(crate) code: Option<String>,
    pub(crate) op: Option<OpId>,
    pub(crate) detail: Vec<String>,
    pub(crate) hints: Vec<String>,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exit, message, code: None, op: None, detail: vec![], hints: vec![] }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// `what`, then the error with all its sources.
    pub(crate) fn from_error(what: impl fmt::Display, error: &dyn Error) -> Self {
        Self::failed(format!("{what}: {}", chain(error)))
    }

    /// Nobody reads our output any more. Not a failure and never printed: it only unwinds the
    /// command.
    pub(crate) fn stdout_closed() -> Self {
        Self::new(Exit::Ok, "")
    }

    /// An answer that does not belong to the question.
    pub(crate) fn unexpected(wanted: &str, got: &impl fmt::Debug) -> Self {
        let mut got = format!("{got:?}");
        got.truncate(got.char_indices().nth(80).map_or(got.len(), |(at, _)| at));
        Self::failed(format!("the daemon answered {got} where {wanted} was expected"))
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.exit == Exit::Ok
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts the object in front, unless the message names it already.
    pub(crate) fn about(mut self, subject: &str) -> Self {
        if !self.message.is_empty() && !mentions(&self.message, subject) {
            self.message = format!("{subject}: {}", self.message);
        }
        self
    }

    /// Names the operation, unless the failure brought its own.
    pub(crate) fn of(mut self, op: OpId) -> Self {
        self.op.get_or_insert(op);
        self
    }
}

/// Whether `word` stands in `text` as a word, so that `a` is not found in `start`.
fn mentions(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}

impl From<FailureInfo> for CliError {
    fn from(failure: FailureInfo) -> Self {
        let FailureInfo { code, message, hints, retryable: _, op_id, detail } = failure;
        let exit = match code.as_str() {
            "not-found" => Exit::NotFound,
            "vm-busy" | "overloaded" => Exit::Busy,
            _ => Exit::Failed,
        };
        let op = op_id.and_then(|op| op.parse().ok());
        Self { exit, message, code: Some(code), op, detail, hints }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: &str) -> FailureInfo {
        FailureInfo {
            code: code.to_owned(),
            message: "start vm web: no".to_owned(),
            hints: vec!["try later".to_owned()],
            retryable: false,
            op_id: Some(OpId([1; 16]).to_string()),
            detail: vec![],
        }
    }

    #[test]
    fn the_daemons_codes_decide_the_exit() {
        let table = [
            ("not-found", Exit::NotFound),
            ("vm-busy", Exit::Busy),
            ("overloaded", Exit::Busy),
            ("refused", Exit::Failed),
            ("no-such-code-yet", Exit::Failed),
        ];
        for (code, exit) in table {
            assert_eq!(CliError::from(failure(code)).exit, exit, "{code}");
        }
    }

    #[test]
    fn the_subject_is_named_once() {
        let named = CliError::from(failure("refused")).about("web");
        assert_eq!(named.message, "start vm web: no");
        let unnamed = CliError::failed("start it: no").about("a");
        assert_eq!(unnamed.message, "a: start it: no");
        let own = CliError::from(failure("refused")).of(OpId([2; 16]));
        assert_eq!(own.op, Some(OpId([1; 16])));
    }
}
