//! Git's references as its files have them: HEAD, loose ones, packed ones.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use banger_agent::contract::workspace::Reference;

/// What cannot be read is not there: the tree is the guest's own, whatever became of it.
pub(super) fn all(git: &Path) -> Vec<Reference> {
    let mut found = BTreeMap::new();
    let packed = fs::read(git.join("packed-refs")).unwrap_or_default();
    for line in packed.split(|byte| *byte == b'\n') {
        // `#` begins the head, `^` what a tag before it points to.
        if line.starts_with(b"#") || line.starts_with(b"^") {
            continue;
        }
        if let Some(at) = line.iter().position(|byte| *byte == b' ') {
            let (value, name) = line.split_at(at);
            found.insert(name[1..].to_vec(), value.to_vec());
        }
    }
    loose(&git.join("refs"), b"refs", &mut found);
    if let Ok(head) = fs::read(git.join("HEAD")) {
        found.insert(b"HEAD".to_vec(), head.trim_ascii().to_vec());
    }
    found.into_iter().map(|(name, value)| Reference { name, value }).collect()
}

fn loose(directory: &Path, name: &[u8], found: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = [name, b"/", entry.file_name().as_bytes()].concat();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => loose(&entry.path(), &name, found),
            Ok(kind) if kind.is_file() && !name.ends_with(b".lock") => {
                let value = fs::read(entry.path()).unwrap_or_default();
                found.insert(name, value.trim_ascii().to_vec());
            }
            _ => {}
        }
    }
}
