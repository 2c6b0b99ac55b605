//! The program `banger` in surroundings of its own.

use std::path::Path;

use assert_cmd::Command;

/// A directory for its logs and its home; gone with the value.
pub(crate) struct Surroundings {
    dir: tempfile::TempDir,
}

impl Surroundings {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `banger` with these arguments, one string split at blanks.
    pub(crate) fn banger(&self, socket: &Path, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command.args(line.split_whitespace());
        self.settle(&mut command, socket);
        command
    }

    /// A shell command line in which `banger` is found.
    pub(crate) fn bash(&self, socket: &Path, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        self.settle(&mut command, socket);
        command
    }

    fn settle(&self, command: &mut Command, socket: &Path) {
        let programs = Path::new(env!("CARGO_BIN_EXE_banger")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("HOME", self.path())
            .env("TZ", "UTC")
            .env("BANGER_SOCKET", socket)
            .env("BANGER_LOG_DIR", self.path().join("log"))
            .timeout(std::time::Duration::from_secs(60));
    }

    /// The lines of the CLI's log.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path().join("log/cli.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a finished command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) trait Finish {
    fn said(&mut self) -> Said;
}

impl Finish for Command {
    fn said(&mut self) -> Said {
        let output = self.output().unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{}", output.status));
        let out = String::from_utf8(output.stdout).unwrap();
        Said { code, out, err: String::from_utf8(output.stderr).unwrap() }
    }
}
