//! The host's own package sources, so that a local mirror serves the images too. Pure parsing,
//! and one function that reads the files.

use std::fs;
use std::path::Path;

/// One-line sources of `suite` and its updates in the host's configuration; empty unless the
/// suite itself is among them.
pub(super) fn of_host(etc_apt: &Path, suite: &str) -> Vec<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    let parts = fs::read_dir(etc_apt.join("sources.list.d")).into_iter().flatten().flatten();
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        match path.extension().and_then(|ext| ext.to_str()) {
            Some("list") => found.extend(one_line(&text)),
            Some("sources") => found.extend(deb822(&text)),
            _ => {}
        }
    }
    let found: Vec<_> = found.into_iter().filter(|source| source.serves(suite)).collect();
    if found.iter().any(|source| source.suite == suite) {
        found.iter().map(Source::line).collect()
    } else {
        vec![]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    options: Vec<String>,
    uri: String,
    suite: String,
    components: Vec<String>,
}

impl Source {
    /// Whether a guest of this suite should have it. Mirrors in files of the host are of no use
    /// to the guest; backports are a choice to be made there.
    fn serves(&self, suite: &str) -> bool {
        let rest = self.suite.strip_prefix(suite);
        let is_part = rest.is_some_and(|rest| {
            ["", "-updates", "-security", "/updates"].contains(&rest.trim_end_matches('/'))
        });
        let remote = ["http://", "https://", "mirror+http"].iter().any(|p| self.uri.starts_with(p));
        is_part && remote && !self.components.is_empty()
    }

    fn line(&self) -> String {
        let options = if self.options.is_empty() {
            String::new()
        } else {
            format!("[{}] ", self.options.join(" "))
        };
        format!("deb {options}{} {} {}", self.uri, self.suite, self.components.join(" "))
    }
}

/// `deb [signed-by=...] http://deb.debian.org/debian bookworm main`
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| -> Option<Source> {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source {
            options: options.split_whitespace().map(str::to_owned).collect(),
            uri: words.next()?,
            suite: words.next()?,
            components: words.collect(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Paragraphs of fields, each with several suites.
fn deb822(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<&str> = lines.collect();
        let field = |name: &str| -> Option<&str> {
            lines.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let words = |name: &str| -> Vec<String> {
            field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        if off || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let options = match field("Signed-By") {
            None => vec![],
            Some(path) if path.starts_with('/') => vec![format!("signed-by={path}")],
            // A key written out has no place in one line.
            Some(_) => continue,
        };
        for uri in words("URIs") {
            for suite in words("Suites") {
                let (options, uri, components) =
                    (options.clone(), uri.clone(), words("Components"));
                found.push(Source { options, uri, suite, components });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(
            parts.join("debian.sources"),
            "Types: deb\n# a remark\nURIs: http://mirror.lan/debian\nSuites: bookworm bookworm-updates \
             bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/k.gpg\n\n\
             Types: deb\nEnabled: no\nURIs: http://off.lan\nSuites: bookworm\nComponents: main\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("sources.list"),
            "# deb http://x bookworm main\ndeb-src http://y bookworm main\n\
             deb [arch=amd64] http://mirror.lan/security bookworm-security main contrib # why\n\
             deb file:/srv/debian bookworm main\ndeb http://other.lan/ trixie main\n",
        )
        .unwrap();
        assert_eq!(
            of_host(dir.path(), "bookworm"),
            [
                "deb [arch=amd64] http://mirror.lan/security bookworm-security main contrib",
                "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.lan/debian bookworm main",
                "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.lan/debian bookworm-updates main",
            ]
        );
        assert_eq!(of_host(dir.path(), "trixie"), ["deb http://other.lan/ trixie main"]);
        assert!(of_host(dir.path(), "sid").is_empty());
        assert!(of_host(&dir.path().join("none"), "sid").is_empty());
    }
}
