//! What wrote a guest's memory to disk, which is what can read it again.

use std::fmt;
use std::str::FromStr;

use super::spec::{VmmChoice, VmmKind};

/// Another version, or the same one without the hardware's help, may understand the file and get
/// the guest wrong; so all three must be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBy {
    pub kind: VmmKind,
    pub version: String,
    /// `kvm`, `tcg`.
    pub accelerator: String,
}

impl SavedBy {
    /// What to ask for in order to get the VMM that can read it.
    #[must_use]
    pub fn choice(&self) -> VmmChoice {
        match self.kind {
            VmmKind::Qemu => VmmChoice::Qemu,
            VmmKind::Firecracker => VmmChoice::Firecracker,
            VmmKind::Sim => VmmChoice::Auto,
        }
    }
}

impl fmt::Display for SavedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind.as_str(), self.version, self.accelerator)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a VMM, its version and its accelerator")]
pub struct ParseSavedByError(String);

impl FromStr for SavedBy {
    type Err = ParseSavedByError;

    fn from_str(text: &str) -> Result<Self, ParseSavedByError> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let wrong = || ParseSavedByError(text.to_owned());
        let [_, version, accelerator] = words[..] else { return Err(wrong()) };
        let kind = VmmKind::described(text).ok_or_else(wrong)?;
        Ok(Self { kind, version: version.to_owned(), accelerator: accelerator.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_nothing_else() {
        for kind in VmmKind::ALL {
            let version = "7.2.22".to_owned();
            let saved = SavedBy { kind, version, accelerator: "tcg".to_owned() };
            assert_eq!(saved.to_string().parse(), Ok(saved));
        }
        for bad in ["", "qemu", "qemu 7.2", "xen 4 kvm", "qemu 7.2 kvm more"] {
            assert!(bad.parse::<SavedBy>().is_err(), "{bad:?}");
        }
    }
}
