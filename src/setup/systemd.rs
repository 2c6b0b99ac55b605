//! The service manager, by its own command: there is nothing that it does not offer there.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::SetupError;

/// In the order in which they start.
pub const UNITS: [&str; 3] = ["banger-helper.service", "bangerd.service", "banger-guests.service"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Systemd {
    Runs,
    /// In a container, say: units are put there for later.
    Absent,
}

impl Systemd {
    #[must_use]
    pub fn find() -> Self {
        if Path::new("/run/systemd/system").is_dir() { Self::Runs } else { Self::Absent }
    }

    /// Does nothing where it does not run.
    pub fn call(self, words: &[&str]) -> Result<(), SetupError> {
        match self {
            Self::Absent => Ok(()),
            Self::Runs => run("systemctl", words).map(drop),
        }
    }

    /// What it says of a unit; nothing where it does not run.
    pub fn show(self, unit: &str) -> Result<HashMap<String, String>, SetupError> {
        if self == Self::Absent {
            return Ok(HashMap::new());
        }
        let said = run("systemctl", &["show", unit])?;
        let pairs = said.lines().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub fn is_active(self, unit: &str) -> Result<bool, SetupError> {
        Ok(self.show(unit)?.get("ActiveState").is_some_and(|state| state == "active"))
    }
}

/// Runs a program of the system's to its end; what it printed.
pub(super) fn run(program: &str, words: &[&str]) -> Result<String, SetupError> {
    #[allow(clippy::disallowed_methods, reason = "the system is set up by its own programs")]
    let mut command = Command::new(program);
    let command = command.args(words).stdin(Stdio::null());
    let line = format!("{program} {}", words.join(" "));
    let output = command.output().map_err(|source| {
        let object = line.clone();
        SetupError::Io { operation: "run", object, source }
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(SetupError::Command { command: line, said: format!("{} ({said})", output.status) })
}
