//! Git's index, as far as it tells what is staged: mode, object and path of each entry. The rest, what
//! files looked like, git writes anew whenever it has looked, and it means nothing.
//!
//! Read here and not by git: the bytes may be a guest's.

use sha2::{Digest as _, Sha256};

use crate::model::Digest;

const HEAD: usize = 12;
/// Times, device, inode, then the mode, owner, size.
const STAT: usize = 40;
const MODE: std::ops::Range<usize> = 24..28;
const EXTENDED: u16 = 0x4000;
const STAGE: u16 = 0x3000;

/// The same for two indices that stage the same; `object`: the bytes of a name of git's. `None`: no
/// index that is understood, which may be one that is kept in several files.
pub(super) fn staged(index: &[u8], object: usize) -> Option<Digest> {
    let (head, mut rest) = index.split_first_chunk::<HEAD>()?;
    let [b'D', b'I', b'R', b'C', version @ .., c0, c1, c2, c3] = *head else { return None };
    let version = u32::from_be_bytes(version);
    let (count, object) = (u32::from_be_bytes([c0, c1, c2, c3]), STAT..STAT + object);
    let (mut hasher, mut path) = (Sha256::new(), vec![]);
    for _ in 0..count {
        let mut at = object.end + 2;
        let flags = rest.get(object.end..at)?;
        let flags = u16::from_be_bytes(flags.try_into().ok()?);
        if flags & EXTENDED != 0 {
            at += 2;
        }
        match version {
            2 | 3 => path.clear(),
            // What it shares with the one before is left out.
            4 => path.truncate(path.len().checked_sub(varint(rest, &mut at)?)?),
            _ => return None,
        }
        let name = rest.get(at..)?;
        let name = name.get(..name.iter().position(|byte| *byte == 0)?)?;
        path.extend_from_slice(name);
        at += name.len();
        let end = if version == 4 { at + 1 } else { (at + 8) & !7 };
        hasher.update(rest.get(MODE)?);
        hasher.update(rest.get(object.clone())?);
        hasher.update((flags & STAGE).to_be_bytes());
        hasher.update(u64::try_from(path.len()).ok()?.to_be_bytes());
        hasher.update(&path);
        rest = rest.get(end..)?;
    }
    Some(Digest(hasher.finalize().into()))
}

/// As git writes the offsets of its packs.
fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut next = || {
        let byte = bytes.get(*at).copied()?;
        *at += 1;
        Some(byte)
    };
    let mut byte = next()?;
    let mut value = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        byte = next()?;
        value = value.checked_add(1)?.checked_mul(1 << 7)?.checked_add(usize::from(byte & 0x7f))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::git::Git;
    use super::*;

    const SHA1: usize = 20;

    #[test]
    fn only_what_is_staged_counts_whatever_form_the_index_has() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::at(dir.path());
        let run = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            git.run(&words).unwrap();
            staged(&fs::read(dir.path().join(".git/index")).unwrap(), SHA1).unwrap()
        };
        for n in 0..300 {
            let file = dir.path().join(format!("d{}/a-file-{n}", n % 7));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, n.to_string()).unwrap();
        }
        git.run(&["init", "-q"]).unwrap();
        let first = run("add -A");
        assert_eq!(run("update-index --really-refresh"), first);
        for version in [4, 3, 2] {
            assert_eq!(run(&format!("update-index --index-version {version}")), first, "{version}");
        }
        run("update-index --index-version 4");
        fs::write(dir.path().join("d1/a-file-1"), "changed").unwrap();
        assert_ne!(run("add d1/a-file-1"), first, "content");
        fs::write(dir.path().join("d1/a-file-1"), "1").unwrap();
        assert_eq!(run("add d1/a-file-1"), first, "and back");
        assert_ne!(run("update-index --chmod=+x d1/a-file-1"), first, "mode");
        assert_eq!(run("update-index --chmod=-x d1/a-file-1"), first);
        assert_ne!(run("rm -q --cached d2/a-file-2"), first, "path");
        fs::write(dir.path().join("new"), "").unwrap();
        let without = run("add d2/a-file-2");
        assert_eq!(without, first);
        // That it is meant to be added is told by a longer entry.
        assert_ne!(run("add -N new"), first);
    }

    #[test]
    fn nonsense_is_no_index() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::at(dir.path());
        git.run(&["init", "-q"]).unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        git.run(&["add", "a"]).unwrap();
        let index = fs::read(dir.path().join(".git/index")).unwrap();
        for end in 0..HEAD + STAT + 24 {
            assert_eq!(staged(&index[..end], SHA1), None, "{end}");
        }
        let mut many = index.clone();
        many[8..12].fill(0xff);
        assert_eq!(staged(&many, SHA1), None);
        let mut newer = index;
        newer[7] = 9;
        assert_eq!(staged(&newer, SHA1), None);
    }
}
