//! Finds a VMM's binary and asks its version.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::model::Code;
use crate::ports::HostError;

/// A binary that cannot print its version in this time will not run a guest either.
const LIMIT: Duration = Duration::from_secs(10);

/// What a VMM's program is called, and where users get it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) hint: &'static str,
}

impl Program {
    /// The configured binary, or the first one in PATH.
    pub(super) fn find(self, configured: Option<&Path>) -> Result<PathBuf, HostError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let candidates: Vec<PathBuf> = match configured {
            Some(path) => vec![path.to_owned()],
            None => env::split_paths(&path).map(|dir| dir.join(self.name)).collect(),
        };
        candidates.into_iter().find(|path| is_executable(path)).ok_or_else(|| {
            let (wanted, why) = match configured {
                Some(path) => (path.display().to_string(), "not an executable file"),
                None => (self.name.to_owned(), "not found in PATH"),
            };
            HostError::new(Code::VmmMissing, "find VMM", wanted).because(why).hint(self.hint)
        })
    }

    /// What `parse` finds in the answer to `--version`.
    pub(super) async fn version<T>(
        self,
        binary: &Path,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, HostError> {
        let failed = || {
            HostError::new(Code::VmmMissing, "ask the version of", binary.display().to_string())
                .hint(self.hint)
        };
        let run =
            Command::new(binary).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
        let output = match timeout(LIMIT, run).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failed().because(error)),
            Err(_) => return Err(failed().because("no answer in 10 seconds")),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed().because(format!("{}: {}", output.status, said.trim())));
        }
        parse(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| failed().because("its answer names no version"))
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program { name: "vmm", hint: "get it" };

    #[tokio::test]
    async fn a_program_that_is_no_vmm_is_told_so() {
        let parse = |text: &str| text.strip_prefix("VMM ").map(str::to_owned);
        let error = PROGRAM.version(Path::new("/bin/false"), parse).await.unwrap_err();
        assert_eq!(error.code, Code::VmmMissing);
        let error = PROGRAM.version(Path::new("/bin/true"), parse).await.unwrap_err();
        assert!(crate::model::chain(&error).contains("names no version"), "{error:?}");
        assert_eq!(error.hints, ["get it"]);
    }

    #[test]
    fn a_directory_or_plain_file_is_not_a_binary() {
        assert!(PROGRAM.find(Some(Path::new("/usr"))).is_err());
        assert!(PROGRAM.find(Some(Path::new("/etc/passwd"))).is_err());
        assert!(PROGRAM.find(Some(Path::new("/bin/sh"))).is_ok());
    }
}
