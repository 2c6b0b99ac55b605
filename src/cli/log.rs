//! The CLI's own log: a JSON line per operation, so that the op id of a failed command finds its
//! story here as well as in the daemon's and the helper's log.
//!
//! It holds no arguments, for those may be secrets. It never makes a command fail.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::OpId;

const FILE: &str = "cli.jsonl";
const MAX_BYTES: u64 = 4 << 20;

/// What there is to say of one operation.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) op: OpId,
    pub(crate) subject: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) error: Option<String>,
}

/// What all operations of one process share.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) time: String,
    pub(crate) command: String,
    pub(crate) exit: u8,
    pub(crate) elapsed_ms: u64,
    pub(crate) pid: u32,
    pub(crate) version: &'static str,
}

#[derive(Serialize)]
struct Line<'a> {
    op_id: String,
    /// `ok` or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    run: &'a Run,
}

/// `BANGER_LOG_DIR`, else the user's state directory; `None` where there is neither.
pub(crate) fn directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = || variable("XDG_STATE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    variable("BANGER_LOG_DIR")
        .map(PathBuf::from)
        .or_else(|| state().or_else(home).map(|state| state.join("banger")))
}

pub(crate) fn append(dir: &Path, run: &Run, stories: &[Story]) -> io::Result<()> {
    let mut text = String::new();
    for story in stories {
        let line = Line {
            op_id: story.op.to_string(),
            outcome: if story.error.is_some() { "failed" } else { "ok" },
            subject: story.subject.as_deref(),
            code: story.code.as_deref(),
            error: story.error.as_deref(),
            run,
        };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    let path = dir.join(FILE);
    let open = || OpenOptions::new().append(true).create(true).open(&path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir)?;
            open()?
        }
        other => other?,
    };
    if file.metadata()?.len() > MAX_BYTES {
        // Two commands may both do this: one of the old logs is lost then, never a new line.
        fs::rename(&path, dir.join(format!("{FILE}.1")))?;
        file = open()?;
    }
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let (time, command) = ("2026-01-01T00:00:00Z".to_owned(), "vm start".to_owned());
        Run { time, command, exit: 1, elapsed_ms: 3, pid: 7, version: "0" }
    }

    fn story(error: Option<&str>) -> Story {
        let (op, subject) = (OpId([1; 16]), Some("web".to_owned()));
        Story { op, subject, code: None, error: error.map(str::to_owned) }
    }

    #[test]
    fn lines_are_appended_and_the_file_turns_over() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/deep");
        append(&dir, &run(), &[story(None), story(Some("no"))]).unwrap();
        let text = fs::read_to_string(dir.join(FILE)).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["outcome"], "ok");
        assert_eq!(lines[1]["error"], "no");
        assert_eq!(lines[1]["op_id"], OpId([1; 16]).to_string());
        assert_eq!(lines[1]["command"], "vm start");

        fs::write(dir.join(FILE), "x".repeat((4 << 20) + 1)).unwrap();
        append(&dir, &run(), &[story(None)]).unwrap();
        assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap().lines().count(), 1);
        assert!(fs::metadata(dir.join("cli.jsonl.1")).unwrap().len() > MAX_BYTES);
    }

    #[test]
    fn an_unusable_directory_is_an_error_not_a_panic() {
        assert!(append(Path::new("/proc/nowhere"), &run(), &[story(None)]).is_err());
    }
}
