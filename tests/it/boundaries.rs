//! The rooms of `src/` and the fences around crates, read from the source itself.
//!
//! Test code (below `#[cfg(test)]`, `*_tests.rs`, the operations' harness) may import more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Room → rooms it may import. `daemon.rs` and the `main.rs` files compose and may see everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &["model"]),
    ("wire", &["wire", "model"]),
    ("ports", &["ports", "model"]),
    ("host", &["host", "ports", "model", "wire::helper", "wire::frame", "wire::hello"]),
    ("sim", &["sim", "ports", "model"]),
    ("store", &["store", "model", "wire::codec"]),
    ("ops", &["ops", "model", "ports", "store"]),
    ("actors", &["actors", "model", "ports", "store", "ops", "wire", "config"]),
    ("cli", &["cli", "model", "wire", "host::guest", "host::workspace", "setup"]),
    ("setup", &["setup", "model", "config"]),
    ("helper", &["helper", "model", "wire::helper", "wire::frame", "wire::hello"]),
    ("config", &["config", "model"]),
];

/// Crate or path → the only places that may name it.
const FENCES: &[(&str, &[&str])] = &[
    ("actix", &["actors/", "main.rs", "daemon"]),
    ("heed", &["store/"]),
    ("bincode", &["wire/codec.rs"]),
    ("crossbeam_channel", &["store/", "sim/"]),
    ("russh", &["host/guest/"]),
    ("qapi", &["host/vmm/qemu/"]),
    ("hyper", &["host/vmm/firecracker/"]),
    ("hyper_util", &["host/vmm/firecracker/"]),
    ("http_body_util", &["host/vmm/firecracker/"]),
    ("hickory_server", &["host/names/"]),
    ("hickory_proto", &["host/names/"]),
    ("rtnetlink", &["helper/"]),
    ("nlink", &["helper/"]),
    ("reqwest", &["host/image/registry/"]),
    ("rustls", &["host/image/registry/"]),
    ("base64", &["host/image/registry/"]),
    ("clap", &["cli/", "main.rs", "helper/main.rs"]),
    ("clap_complete", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("sd_notify", &["daemon/notify.rs", "helper/notify.rs"]),
    ("std::process::Command", &["host/", "helper/", "setup/"]),
    ("tokio::process", &["host/", "helper/"]),
    ("println!", &["cli/"]),
    ("eprintln!", &["cli/", "main.rs", "helper/main.rs"]),
];

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The file's production code, comments taken out, and its path below `src/`.
fn sources() -> Vec<(String, String)> {
    let root = source_dir();
    let mut paths = vec![];
    files(&root, &mut paths);
    let mut sources = vec![];
    for path in paths {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let is_test =
            |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs");
        if name.split('/').any(is_test) || name.starts_with("ops/harness") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = production.lines().filter(|line| !line.trim_start().starts_with("//"));
        sources.push((name, lines.collect::<Vec<_>>().join("\n")));
    }
    sources
}

/// Every `crate::a::b` path as `a::b`, grouped imports (`crate::{a, b}`) taken apart.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        // `banger_agent::` and `$crate::` are other crates' paths.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let word = |s: &str| -> String {
            s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let end = group.find('}').unwrap_or(group.len());
            found.extend(group[..end].split(',').map(|part| word(part.trim())));
            continue;
        }
        let first = word(rest);
        let second = rest[first.len()..].strip_prefix("::").map(word).unwrap_or_default();
        found.insert(format!("{first}::{second}"));
    }
    found
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut broken = vec![];
    for (file, text) in sources() {
        let room = file.split(['/', '.']).next().unwrap();
        if file.ends_with("main.rs") || file == "lib.rs" || room == "daemon" {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{file}: {room} is no room; add it to house and test"));
            continue;
        };
        for import in imports(&text) {
            let fits = |rule: &&str| match rule.split_once("::") {
                None => import == **rule || import.starts_with(&format!("{rule}::")),
                Some(_) => import == **rule,
            };
            if !allowed.iter().any(fits) {
                broken.push(format!("{file} imports {import}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn fenced_crates_are_named_in_one_place() {
    let mut broken = vec![];
    for (file, text) in sources() {
        for (name, places) in FENCES {
            let fenced = text.match_indices(name).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                let after = text[at + name.len()..].chars().next();
                let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                let path = name.ends_with('!')
                    || name.contains("::")
                    || text[at + name.len()..].starts_with("::")
                    || text[at + name.len()..].starts_with(';');
                !joins(before) && !joins(after) && path
            });
            let home = |place: &&str| file.starts_with(*place);
            if fenced && !places.iter().any(home) {
                broken.push(format!("{file} names {name}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A file of more is split, or its head says why not.
#[test]
fn files_stay_readable() {
    let root = source_dir();
    let mut paths = vec![];
    files(&root, &mut paths);
    let long: Vec<_> = paths
        .iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let lines = text.lines().count();
            (lines > 600).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Every module begins by saying what it is for.
#[test]
fn modules_have_heads() {
    let root = source_dir();
    let mut paths = vec![];
    files(&root, &mut paths);
    let bare: Vec<_> = paths
        .iter()
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| path.display().to_string())
        .collect();
    assert!(bare.is_empty(), "without a head: {}", bare.join(", "));
}

mod the_reader {
    use super::*;

    #[test]
    fn sees_every_form_of_import() {
        let text =
            "use crate::wire::codec;\nuse crate::{model, store};\nlet x = crate::ops::run();";
        let seen: Vec<_> = imports(text).into_iter().collect();
        assert_eq!(seen, ["model", "ops::run", "store", "wire::codec"]);
    }
}
