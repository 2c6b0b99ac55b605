//! Workspaces: real repositories, the real agent as an ordinary process, and no VM. What a guest would
//! have at `/root/repo` is a directory here.

#![allow(clippy::disallowed_methods, reason = "tests run git and play the SSH server")]

mod again;
mod compare;
mod export;
mod guest_changes;
mod hostile;
mod interrupted;
mod prepare;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use banger::host::workspace::{Plan, PlanOptions, Prepared, WorkspaceError, plan, prepare};
use banger_agent::contract::workspace::VERB;
use tokio::process::{Child, Command};

use crate::support::guest::agent_program;

/// A repository with one commit, and beside it the place of a guest's.
struct Place {
    dir: tempfile::TempDir,
    /// What was sent last, as the daemon keeps it.
    last: Mutex<Option<Vec<u8>>>,
}

impl Place {
    fn empty() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), last: Mutex::default() };
        fs::create_dir(place.repo()).unwrap();
        place.git("init -q -b main");
        place.git("config user.name Ann");
        place.git("config user.email ann@example.org");
        place
    }

    fn new() -> Self {
        let place = Self::empty();
        place.write("a.txt", "one\n");
        place.write("src/b.txt", "two\n");
        place.write(".gitignore", "target/\n*.log\n");
        place.commit("first");
        place
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn guest(&self) -> PathBuf {
        self.dir.path().join("guest/repo")
    }

    fn write(&self, path: &str, content: &str) {
        write(&self.repo(), path, content);
    }

    fn write_guest(&self, path: &str, content: &str) {
        write(&self.guest(), path, content);
    }

    fn read_guest(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.guest().join(path)).ok()
    }

    fn commit(&self, message: &str) {
        self.git("add -A");
        self.git(&format!("commit -q -m {message}"));
    }

    fn git(&self, line: &str) -> String {
        git(&self.repo(), line)
    }

    fn git_guest(&self, line: &str) -> String {
        git(&self.guest(), line)
    }

    fn plan(&self, mut options: PlanOptions) -> Result<Plan, WorkspaceError> {
        let last = self.last.lock().unwrap().clone();
        options.last = options.last.or(last);
        plan(&self.repo(), options)
    }

    /// As if the record was lost.
    fn forget(&self) {
        *self.last.lock().unwrap() = None;
    }

    async fn prepare(&self) -> Result<Prepared, WorkspaceError> {
        self.prepare_with(PlanOptions::default(), false).await
    }

    async fn prepare_with(
        &self,
        options: PlanOptions,
        discard: bool,
    ) -> Result<Prepared, WorkspaceError> {
        self.send(self.plan(options)?, discard).await
    }

    async fn send(&self, plan: Plan, discard: bool) -> Result<Prepared, WorkspaceError> {
        let (stream, mut agent) = agent();
        let guest = self.guest();
        let prepared = prepare(Arc::new(plan), guest.to_str().unwrap(), discard, stream).await;
        // With it goes its lock.
        agent.wait().await.unwrap();
        let prepared = prepared?;
        *self.last.lock().unwrap() = Some(prepared.manifest.clone());
        Ok(prepared)
    }
}

/// The agent's end of a conversation, as the SSH server would run it.
fn agent() -> (impl tokio::io::AsyncRead + tokio::io::AsyncWrite, Child) {
    let mut command = Command::new(agent_program());
    command.arg(VERB).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let (stdout, stdin) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    (tokio::io::join(stdout, stdin), child)
}

fn write(root: &Path, path: &str, content: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// Words are split at blanks.
fn git(directory: &Path, line: &str) -> String {
    let output = std::process::Command::new("git")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "protocol.file.allow=always", "-C"])
        .arg(directory)
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
