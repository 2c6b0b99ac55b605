//! Finds the QEMU binary and asks its version.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::model::Code;
use crate::ports::HostError;

const NAME: &str = "qemu-system-x86_64";
const PACKAGE_HINT: &str = "apt install qemu-system-x86";
/// A binary that cannot print its version in this time will not run a guest either.
const LIMIT: Duration = Duration::from_secs(10);

/// The configured binary, or the first one in PATH.
pub(super) fn find(configured: Option<&Path>) -> Result<PathBuf, HostError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = match configured {
        Some(path) => vec![path.to_owned()],
        None => env::split_paths(&path).map(|dir| dir.join(NAME)).collect(),
    };
    candidates.into_iter().find(|path| is_executable(path)).ok_or_else(|| {
        let wanted = configured.map_or_else(|| NAME.to_owned(), |path| path.display().to_string());
        let why = if configured.is_some() { "not an executable file" } else { "not found in PATH" };
        HostError::new(Code::VmmMissing, "find VMM", wanted).because(why).hint(PACKAGE_HINT)
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

pub(super) async fn version(binary: &Path) -> Result<String, HostError> {
    let failed = || {
        HostError::new(Code::VmmMissing, "ask the version of", binary.display().to_string())
            .hint(PACKAGE_HINT)
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
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| failed().because("its answer names no version"))
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)` gives `7.2.22`.
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.lines().next()?.split_once(" version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_word_after_version() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright (c) 2003-2022\n";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("usage: true"), None);
        assert_eq!(parse_version(""), None);
    }

    #[tokio::test]
    async fn a_program_that_is_no_vmm_is_told_so() {
        let error = version(Path::new("/bin/false")).await.unwrap_err();
        assert_eq!(error.code, Code::VmmMissing);
        let error = version(Path::new("/bin/true")).await.unwrap_err();
        assert!(crate::model::chain(&error).contains("names no version"), "{error:?}");
    }

    #[test]
    fn a_directory_or_plain_file_is_not_a_binary() {
        assert!(find(Some(Path::new("/usr"))).is_err());
        assert!(find(Some(Path::new("/etc/passwd"))).is_err());
        assert!(find(Some(Path::new("/bin/sh"))).is_ok());
    }
}
