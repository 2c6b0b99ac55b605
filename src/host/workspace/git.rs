//! The only place that runs `git`: plumbing, in surroundings that are always the same, with NUL
//! between names. It never asks, never fetches, runs no hook and takes no optional lock.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::error::{Result, WorkspaceError};

/// Of whatever the user's shell has set, what would point git elsewhere.
const FOREIGN: [&str; 13] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_EXTERNAL_DIFF",
    "GIT_ATTR_SOURCE",
];
const FIXED: [(&str, &str); 6] = [
    ("LC_ALL", "C"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_PAGER", "cat"),
    ("GIT_LITERAL_PATHSPECS", "0"),
];
const SETTINGS: [&str; 5] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.quotePath=false",
    "core.untrackedCache=false",
    "submodule.recurse=false",
];

/// Git in a directory.
#[derive(Clone, Debug)]
pub(super) struct Git {
    directory: PathBuf,
    env: Vec<(OsString, OsString)>,
}

impl Git {
    pub(super) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), env: vec![] }
    }

    /// With one more variable.
    pub(super) fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// What it printed; an error if it did not succeed.
    pub(super) fn run(&self, args: &[&str]) -> Result<Vec<u8>> {
        self.feed(args, &[])
    }

    pub(super) fn feed(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let output = self.output(args, input)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(said(args, &output.stderr)),
        }
    }

    /// Whatever its status is.
    pub(super) fn output(&self, args: &[&str], input: &[u8]) -> Result<Output> {
        let command = || args.first().copied().unwrap_or_default().to_owned();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => WorkspaceError::GitMissing,
            _ => WorkspaceError::GitRun { command: command(), source },
        };
        let mut child = self.command(args).spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        // It may print before it has read all, so somebody else writes.
        std::thread::scope(|scope| {
            if let Some(mut stdin) = stdin {
                // What it does not read it does not need.
                scope.spawn(move || drop(stdin.write_all(input)));
            }
            child.wait_with_output()
        })
        .map_err(failed)
    }

    #[allow(clippy::disallowed_methods, reason = "this file is git's fence")]
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        for name in FOREIGN {
            command.env_remove(name);
        }
        command.envs(FIXED).envs(self.env.iter().cloned()).arg("-C").arg(&self.directory);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

pub(super) fn said(args: &[&str], stderr: &[u8]) -> WorkspaceError {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim().trim_start_matches("fatal: ").replace('\n', "; ");
    let command = args.first().copied().unwrap_or_default().to_owned();
    WorkspaceError::GitSaid { command, said: text }
}

/// Names with NUL between them.
pub(super) fn names(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

/// The reverse of [`names`].
pub(super) fn joined<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    names.into_iter().fold(vec![], |mut all, name| {
        all.extend_from_slice(name);
        all.push(0);
        all
    })
}

/// A line without its end.
pub(super) fn line(output: &[u8]) -> String {
    String::from_utf8_lossy(output.strip_suffix(b"\n").unwrap_or(output)).into_owned()
}
