//! How an image in a registry is named.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::ids::Digest;

/// `[REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]`; what is left out is Docker's: its registry, its
/// own images, the tag `latest`. Where there is a digest it alone says which image is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageRef {
    #[error("{0:?} is no image of a registry: [REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]")]
    Form(String),
    #[error("{0:?} names a registry that cannot be: HOST or HOST:PORT")]
    Registry(String),
    #[error("repository {0:?} has other characters than a-z, 0-9 and single . _ - between them")]
    Repository(String),
    #[error("tag {0:?} has other characters than letters, digits, . _ - or more than 128")]
    Tag(String),
    #[error("digest {0:?} is not sha256: and 64 hex digits")]
    Digest(String),
    #[error("a reference of {0} characters is longer than {MAX_LENGTH}")]
    TooLong(usize),
}

const DOCKER: &str = "docker.io";
/// Whole, it is the key of a row.
const MAX_LENGTH: usize = 400;

impl ImageRef {
    /// As it is written: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    #[must_use]
    pub fn is_docker_hub(&self) -> bool {
        self.registry == DOCKER
    }

    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// None if the digest says it all.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository at this digest, which means the same image for ever.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Whether a text can only be meant as an image of a registry: no name given here looks like it.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(['/', ':', '@'])
    }
}

impl FromStr for ImageRef {
    type Err = InvalidImageRef;

    fn from_str(text: &str) -> Result<Self, InvalidImageRef> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let digest = digest.map(|digest| {
            let hex = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
            hex.ok_or_else(|| InvalidImageRef::Digest(digest.to_owned()))
        });
        let digest = digest.transpose()?;
        // A colon before the last slash is a port's.
        let colon = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (path, tag) = match colon {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(InvalidImageRef::Tag(tag.to_owned()));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_ascii_lowercase(), rest)
            }
            _ => (DOCKER.to_owned(), path),
        };
        let registry = if registry == "index.docker.io" { DOCKER.to_owned() } else { registry };
        if !is_registry(&registry) {
            return Err(InvalidImageRef::Registry(registry));
        }
        if repository.is_empty() {
            return Err(InvalidImageRef::Form(text.to_owned()));
        }
        if !repository.split('/').all(is_part) {
            return Err(InvalidImageRef::Repository(repository.to_owned()));
        }
        let repository = match registry == DOCKER && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(str::to_owned);
        let image = Self { registry, repository, tag, digest };
        match image.to_string().len() {
            length if length > MAX_LENGTH => Err(InvalidImageRef::TooLong(length)),
            _ => Ok(image),
        }
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    port && match bracketed {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    }
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Words of letters and digits, joined by one dot, one or two underscores, or hyphens.
fn is_part(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joint =
        |joint: &str| matches!(joint, "" | "." | "_" | "__") || joint.chars().all(|c| c == '-');
    text.starts_with(word) && text.ends_with(word) && text.split(word).all(joint)
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_dockers() {
        let digest = "ab".repeat(32);
        let (pinned, both) =
            (format!("ghcr.io/a/b@sha256:{digest}"), format!("ghcr.io/a/b:1@sha256:{digest}"));
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("python:3.12", "docker.io/library/python:3.12"),
            ("index.docker.io/team/x", "docker.io/team/x:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("team/debian:bookworm", "docker.io/team/debian:bookworm"),
            ("localhost/a/b:V1_x", "localhost/a/b:V1_x"),
            ("Quay.IO/a/b", "quay.io/a/b:latest"),
            ("127.0.0.1:5000/a__b/c-d.e", "127.0.0.1:5000/a__b/c-d.e:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            (&pinned, &pinned),
            (&both, &both),
            ("x/y:z-", "docker.io/x/y:z-"),
        ] {
            let found: ImageRef = text.parse().unwrap();
            assert_eq!(found.to_string(), whole);
            assert_eq!(whole.parse(), Ok(found.clone()));
        }
        let tagged: ImageRef = "ghcr.io/a/b:1".parse().unwrap();
        assert_eq!(tagged.pinned(Digest([0xab; 32])).to_string(), pinned);
    }

    #[test]
    fn what_no_registry_has_is_refused() {
        for text in [
            "",
            "/",
            "a//b",
            "A/b",
            "a:",
            "a:b c",
            "a@sha256:12",
            "a@md5:ab",
            "-a",
            "a.",
            "a..b",
            "a___b",
            "ex ample.com/a",
            "host:0/a",
            "host:99999/a",
            "http://x.y/a",
            "../a",
            "a/../b",
            "x.y/",
            "a:b:c",
            "-x.y/a",
            "[::g]:5000/a",
            &format!("a:{}", "t".repeat(129)),
            &"a/".repeat(250),
            &"a".repeat(500),
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?}");
        }
    }
}
