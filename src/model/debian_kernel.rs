//! Kernels by the names of Debian's packages. Pure.

use super::name::Name;

/// What was asked for; both become arguments of programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianKernel {
    package: String,
    /// Of those that the host's sources have, in place of what apt would take.
    suite: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPackage {
    #[error("{0:?} is not the name of a Debian package")]
    Package(String),
    #[error("{0:?} is no suite: that is a word such as bookworm-backports")]
    Suite(String),
}

/// What it comes to now: the package with the kernel, and those with its modules where it has them
/// in packages of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOffer {
    pub package: String,
    pub version: String,
    pub others: Vec<String>,
}

/// Before the package and its version, in a kernel's source.
const MARK: &str = "debian ";

impl DebianKernel {
    pub fn new(package: &str, suite: Option<&str>) -> Result<Self, InvalidPackage> {
        if !is_package(package) {
            return Err(InvalidPackage::Package(package.to_owned()));
        }
        if let Some(suite) = suite.filter(|suite| !is_word(suite, "-.")) {
            return Err(InvalidPackage::Suite(suite.to_owned()));
        }
        Ok(Self { package: package.to_owned(), suite: suite.map(str::to_owned) })
    }

    #[must_use]
    pub fn package(&self) -> &str {
        &self.package
    }

    #[must_use]
    pub fn suite(&self) -> Option<&str> {
        self.suite.as_deref()
    }
}

/// As Debian's policy has it (5.6.1): two characters at least, of `a-z 0-9 + - .`, the first a letter
/// or digit; so none is an option.
#[must_use]
pub fn is_package(text: &str) -> bool {
    (2..=128).contains(&text.len())
        && is_word(text, "+-.")
        && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// As the policy has it (5.6.12); it stands behind a package's name, so only its characters count.
#[must_use]
pub fn is_version(text: &str) -> bool {
    text.len() <= 128 && is_word(text, ".+-:~")
}

fn is_word(text: &str, more: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

impl KernelOffer {
    /// As a kernel's record has it.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{MARK}{} {}", self.package, self.version)
    }
}

/// Whether a kernel with this source was pulled.
#[must_use]
pub fn is_pulled(source: &str) -> bool {
    source.starts_with(MARK)
}

/// The name that a kernel keeps when the one that it was pulled by goes to a later one.
#[must_use]
pub fn name_of_source(source: &str) -> Option<Name> {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let (package, version) = source.strip_prefix(MARK)?.split_once(' ')?;
    let text: String = [package, "-", version]
        .concat()
        .chars()
        .map(|c| if c == '.' { c } else { plain(c) })
        .collect();
    Name::artefact(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_an_option_or_leads_anywhere() {
        for good in ["linux-image-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64", "g++", "0ad"] {
            assert!(DebianKernel::new(good, Some("bookworm-backports")).is_ok(), "{good}");
        }
        let long = "x".repeat(129);
        let bad = ["", "x", "-o", "--yes", "a/b", "../x", "a b", "a=1", "Linux", "a\n", "ä", "a:b"];
        for bad in bad.into_iter().chain([long.as_str()]) {
            let refused = DebianKernel::new(bad, None);
            assert!(matches!(refused, Err(InvalidPackage::Package(_))), "{bad:?}");
        }
        for bad in ["", "-t", "a b", "a/b", "a=b", "*"] {
            let refused = DebianKernel::new("linux-image", Some(bad));
            assert!(matches!(refused, Err(InvalidPackage::Suite(_))), "{bad:?}");
        }
        assert!(is_version("1:6.1.192-2+deb12u1~bpo") && !is_version("-1") && !is_version("1 2"));
    }

    #[test]
    fn what_a_source_was_is_a_name() {
        let offer = KernelOffer {
            package: "linux-image-6.1.0-50-cloud-amd64".to_owned(),
            version: "1:6.1.192-2+deb12u1~bpo".to_owned(),
            others: vec![],
        };
        assert!(is_pulled(&offer.source()) && !is_pulled("linux.deb"));
        let name = name_of_source(&offer.source()).unwrap();
        assert_eq!(name.as_str(), "linux-image-6.1.0-50-cloud-amd64-1-6.1.192-2-deb12u1-bpo");
        assert_eq!(name_of_source("linux.deb"), None);
        assert_eq!(name_of_source("debian x"), None);
    }
}
