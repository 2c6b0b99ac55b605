//! Values as users write them, refused before anything is asked of the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cli::error::CliError;
use crate::model::{Digest, Name, Size};

pub(crate) fn vm_name(text: &str) -> Result<String, String> {
    Name::vm(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

pub(crate) fn artefact_name(text: &str) -> Result<String, String> {
    Name::artefact(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// `sha256:` before it is let pass.
pub(crate) fn sha256(text: &str) -> Result<Digest, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.parse().map_err(|_| format!("{text:?} is no SHA-256 in hex, which has 64 digits"))
}

pub(crate) fn size(text: &str) -> Result<Size, String> {
    text.parse::<Size>().map_err(|error| error.to_string())
}

/// In MiB.
pub(crate) fn memory(text: &str) -> Result<u32, String> {
    u32::try_from(size(text)?.mib()).map_err(|_| format!("{text:?} is more than any host has"))
}

/// `20s`, `1m30s`, `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let syntax = || format!("{text:?} is not a time; write 20s, 1m30s or 500ms");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| syntax())?;
    Duration::try_from(parsed).map_err(|_| syntax())
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `KILL`, `SIGTERM`, `15`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    let unknown = || format!("{text:?} is not a signal; write TERM, SIGKILL or a number");
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map(|signal| signal as i32).map_err(|_| unknown());
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

/// `NAME=value`, or `NAME` for its value here.
pub(crate) fn variable(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word)
    {
        return Err(format!("{name:?} is not a name of letters, digits and _"));
    }
    Ok((name.to_owned(), value))
}

/// The variables to give on. One that is named without a value and not set here is left out.
pub(crate) fn environment(
    asked: Vec<(String, Option<String>)>,
) -> Result<Vec<(String, String)>, CliError> {
    let mut variables = vec![];
    for (name, value) in asked {
        let value = match value {
            Some(value) => Some(value),
            None => match std::env::var(&name) {
                Ok(value) => Some(value),
                Err(std::env::VarError::NotPresent) => None,
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(CliError::usage(format!("the value of {name} is not UTF-8")));
                }
            },
        };
        variables.extend(value.map(|value| (name, value)));
    }
    Ok(variables)
}

/// The daemon reads the path, and has another working directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::fs::canonicalize(path).map_err(|error| CliError::from_error(path.display(), &error))
}

pub(crate) fn utf8(path: PathBuf) -> Result<String, CliError> {
    path.into_os_string()
        .into_string()
        .map_err(|path| CliError::usage(format!("the path {path:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("20s", 20_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("7", 7000),
            ("0", 0),
            ("2 min", 120_000),
        ];
        for (text, ms) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "x", "-5s", "5 parsecs", "1.5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals() {
        for (text, number) in [("KILL", 9), ("sigterm", 15), ("SIGINT", 2), ("1", 1)] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for bad in ["", "0", "SIG", "BOGUS", "99", "-9"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), Some("b=c".to_owned()))));
        assert_eq!(variable("A="), Ok(("A".to_owned(), Some(String::new()))));
        assert_eq!(variable("_A1"), Ok(("_A1".to_owned(), None)));
        for bad in ["", "=x", "1A=x", "A B=x"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
        let unset = ("BANGER_SURELY_NOT_SET".to_owned(), None);
        let path = ("PATH".to_owned(), None);
        let found = environment(vec![unset, path]).unwrap();
        assert_eq!(found, [("PATH".to_owned(), std::env::var("PATH").unwrap())]);
    }

    #[test]
    fn memory_is_in_mib() {
        assert_eq!(memory("1G"), Ok(1024));
        assert_eq!(memory("512"), Ok(512));
        for bad in ["0", "-5G", "x", "9999999T"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }
}
