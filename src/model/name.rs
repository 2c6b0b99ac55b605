//! Names that users choose.

use std::fmt;
use std::str::FromStr;

use super::image_ref::ImageRef;

/// A DNS label: it becomes a host name, a `<name>.vm` record and a directory, so it may hold
/// nothing that any of them would interpret. 1 to 63 of `a-z 0-9 -`, no hyphen at either end.
/// VMs use it as it is; images and kernels allow dots and underscores as well, and an image of a
/// registry is called what the registry calls it, in full. Those become nothing but keys.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a name cannot be empty")]
    Empty,
    #[error("name {0:?} is longer than 63 characters")]
    TooLong(String),
    #[error("name {name:?} has {found:?}; letters a-z, digits and hyphens are allowed")]
    Character { name: String, found: char },
    #[error("name {0:?} starts or ends with a hyphen or dot")]
    Edge(String),
    #[error("name {0:?} looks like an id: 12 or more hex digits")]
    LooksLikeId(String),
}

impl Name {
    /// A VM's name.
    pub fn vm(text: &str) -> Result<Self, InvalidName> {
        Self::check(text, "-")?;
        // `banger vm stop abcdefabcdef` must mean one thing only.
        if text.len() >= 12 && text.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(InvalidName::LooksLikeId(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// An image's or a kernel's name: dots and underscores too, as in `debian-12.7`.
    pub fn artefact(text: &str) -> Result<Self, InvalidName> {
        Self::check(text, "-._")?;
        Ok(Self(text.to_owned()))
    }

    /// An image's name: one given here, or a registry's with nothing left out.
    pub fn image(text: &str) -> Result<Self, InvalidName> {
        match text.parse::<ImageRef>() {
            Ok(image) if ImageRef::is_meant(text) && image.to_string() == text => {
                Ok(Self::from(&image))
            }
            _ => Self::artefact(text),
        }
    }

    fn check(text: &str, punctuation: &str) -> Result<(), InvalidName> {
        let first_last = (text.chars().next(), text.chars().next_back());
        let (Some(first), Some(last)) = first_last else { return Err(InvalidName::Empty) };
        if text.len() > 63 {
            return Err(InvalidName::TooLong(text.to_owned()));
        }
        let allowed =
            |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || punctuation.contains(*c);
        if let Some(found) = text.chars().find(|c| !allowed(c)) {
            return Err(InvalidName::Character { name: text.to_owned(), found });
        }
        if punctuation.contains(first) || punctuation.contains(last) {
            return Err(InvalidName::Edge(text.to_owned()));
        }
        Ok(())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&ImageRef> for Name {
    fn from(image: &ImageRef) -> Self {
        Self(image.to_string())
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::vm(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_labels_pass() {
        for good in ["a", "web", "web-1", "9lives", "abcdefabcde", &"x".repeat(63)] {
            assert!(Name::vm(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        let bad = ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "..", "ä", "a b", "a\n", &long];
        for bad in bad {
            assert!(Name::vm(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(Name::vm("abcdefabcdef"), Err(InvalidName::LooksLikeId(_))));
    }

    #[test]
    fn artefacts_may_have_dots_but_no_paths() {
        assert!(Name::artefact("debian-12.7_slim").is_ok());
        for bad in ["..", ".hidden", "a/b", "a."] {
            assert!(Name::artefact(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_image_of_a_registry_is_called_by_all_of_its_name() {
        for good in ["debian-12.7_slim", "docker.io/library/python:3.12", "10.0.0.1:5000/a/b:c"] {
            assert_eq!(Name::image(good).map(|name| name.to_string()).as_deref(), Ok(good));
        }
        for bad in ["python:3.12", "docker.io/python:3.12", "a/b", "quay.io/a/b", "x.y/../z:1"] {
            assert!(Name::image(bad).is_err(), "{bad:?}");
        }
    }
}
