//! Firecracker's program, its version, and the versions that this adapter was made for.
//!
//! Within a major version the API only grows, so a newer one most likely serves; an older one
//! lacks what is asked of it.

use std::fmt;

use super::super::binary::Program;

pub(super) const FIRECRACKER: Program = Program {
    name: "firecracker",
    hint: "take a release from https://github.com/firecracker-microvm/firecracker, and put it \
           into PATH or set firecracker_bin",
};

pub(super) const JAILER: Program = Program { name: "jailer", hint: "it comes with Firecracker" };

/// Before it, Ctrl-Alt-Del does not reach kernels that find their devices by ACPI.
pub(super) const OLDEST: (u32, u32) = (1, 12);
/// The newest that guests of ours were seen to run on.
pub(super) const NEWEST: (u32, u32) = (1, 17);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    text: String,
}

impl Version {
    /// The first line of `--version`'s answer, `Firecracker v1.17.0-dev`; log lines may follow it.
    pub(super) fn parse(said: &str) -> Option<Self> {
        Self::after("Firecracker v", said)
    }

    /// Of `Jailer v1.17.0-dev`.
    pub(super) fn parse_jailer(said: &str) -> Option<Self> {
        Self::after("Jailer v", said)
    }

    fn after(name: &str, said: &str) -> Option<Self> {
        let text = said.lines().next()?.trim().strip_prefix(name)?;
        let mut numbers = text.split(['.', '-', '+']);
        let mut number = || numbers.next()?.parse().ok();
        let (major, minor, _patch) = (number()?, number()?, number()?);
        Some(Self { major, minor, text: text.to_owned() })
    }

    pub(super) fn fits(&self) -> Fit {
        match (self.major, self.minor) {
            version if version < OLDEST => Fit::TooOld(format!(
                "firecracker {self} is older than {}.{}, the oldest that serves",
                OLDEST.0, OLDEST.1
            )),
            version if version > NEWEST => Fit::Untried(format!(
                "firecracker {self} is newer than {}.{}, the newest that was tried",
                NEWEST.0, NEWEST.1
            )),
            _ => Fit::Good,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Good,
    /// Refused, with these words.
    TooOld(String),
    /// Used, and these words shown.
    Untried(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Option<Version> {
        Version::parse(&format!(
            "Firecracker v{text}\n\n2026-01-01T00:00:00 [anonymous-instance:main] exiting\n"
        ))
    }

    #[test]
    fn the_first_line_names_the_version() {
        assert_eq!(version("1.17.0-dev").unwrap().to_string(), "1.17.0-dev");
        assert_eq!(version("1.16.1").unwrap().to_string(), "1.16.1");
        for bad in ["", "1", "1.16", "x.1.2"] {
            assert_eq!(version(bad), None, "{bad:?}");
        }
        assert_eq!(Version::parse(""), None);
        assert_eq!(Version::parse("Jailer v1.17.0"), None);
        assert_eq!(Version::parse_jailer("Jailer v1.17.0-dev\n"), version("1.17.0-dev"));
    }

    #[test]
    fn older_ones_are_refused_and_newer_ones_warned_of() {
        let fits = |text| version(text).unwrap().fits();
        for good in ["1.12.0", "1.16.1", "1.17.0-dev", "1.17.9"] {
            assert_eq!(fits(good), Fit::Good, "{good}");
        }
        for old in ["0.25.2", "1.11.9"] {
            assert!(
                matches!(fits(old), Fit::TooOld(why) if why.contains(old) && why.contains("1.12"))
            );
        }
        for new in ["1.18.0", "2.0.0"] {
            assert!(
                matches!(fits(new), Fit::Untried(why) if why.contains(new) && why.contains("1.17"))
            );
        }
    }
}
