//! What is read is what was written, by us and by others; and whatever a disk says, reading it ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::*;
use crate::host::image::ext4::tree::{Meta, Special};
use crate::host::image::ext4::{Builder, Built};

/// Everything of a file system, in words.
fn listing(volume: &Volume) -> Result<BTreeMap<String, String>, ReadError> {
    let (mut all, mut first) = (BTreeMap::new(), BTreeMap::new());
    volume.walk(&[], &mut |found: Found| {
        let path = String::from_utf8_lossy(&found.path).into_owned();
        let Meta { mode, uid, gid, mtime, mtime_nsec, xattrs } = &found.meta;
        let content = match found.content {
            Content::File { len, contents } => {
                let mut bytes = vec![];
                contents.take(4 << 20).read_to_end(&mut bytes)?;
                let sum = bytes
                    .iter()
                    .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
                format!("file {len} {sum:x}")
            }
            Content::Dir => "dir".to_owned(),
            Content::Symlink(target) => format!("link {}", String::from_utf8_lossy(&target)),
            Content::Special(special) => format!("{special:?}"),
        };
        let same = match found.is_linked {
            true => first.entry(found.file).or_insert_with(|| path.clone()).clone(),
            false => String::new(),
        };
        let text = format!("{content} {mode:o} {uid}:{gid} {mtime}.{mtime_nsec} {xattrs:?} {same}");
        all.insert(path, text);
        Ok::<_, ReadError>(true)
    })?;
    Ok(all)
}

fn open(path: &Path) -> Result<Volume, ReadError> {
    Volume::open(Arc::new(File::open(path)?))
}

use std::sync::Arc;

fn meta(mode: u16, owner: u32) -> Meta {
    Meta { mode, uid: owner, gid: owner + 1, mtime: -7, mtime_nsec: 9, ..Meta::default() }
}

/// An image of ours with all that one may have.
fn ours(path: &Path) -> Built {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let mut builder = Builder::new(file);
    builder.directory(b"etc", meta(0o750, 70_000)).unwrap();
    let mut with = meta(0o644, 0);
    with.xattrs.insert(b"user.note".to_vec(), vec![7; 300]);
    with.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
    let acl =
        [&2_u32.to_le_bytes()[..], &[1, 0, 7, 0, 255, 255, 255, 255], &[2, 0, 5, 0, 9, 0, 0, 0]];
    with.xattrs.insert(b"system.posix_acl_access".to_vec(), acl.concat());
    builder.file(b"etc/a b\n\xff", with, &mut &b"hello"[..], 5).unwrap();
    let large = vec![3; 300_000];
    builder.file(b"large", meta(0o4755, 1), &mut &large[..], 300_000).unwrap();
    builder.hard_link(b"other", b"large").unwrap();
    builder.symlink(b"short", meta(0o777, 0), b"etc").unwrap();
    builder.symlink(b"long", meta(0o777, 0), "x/".repeat(100).as_bytes()).unwrap();
    builder.special(b"null", meta(0o666, 0), Special::Char { major: 1, minor: 3 }).unwrap();
    let far = Special::Block { major: 259, minor: 70_000 };
    builder.special(b"disk", meta(0o660, 0), far).unwrap();
    builder.special(b"pipe", meta(0o600, 0), Special::Fifo).unwrap();
    for number in 0..2000 {
        let name = format!("many/a name that is rather long, {number}");
        builder.file(name.as_bytes(), meta(0o644, 0), &mut &b""[..], 0).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn an_image_of_ours_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    ours(&path);
    let all = listing(&open(&path).unwrap()).unwrap();
    assert_eq!(all.len(), 2000 + 11, "root and many included");
    assert!(all["etc"].starts_with("dir 750 70000:70001 -7.9"), "{}", all["etc"]);
    let with = &all["etc/a b\n\u{fffd}"];
    assert!(with.contains("file 5 "), "{with}");
    assert_eq!(with.matches("[2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255").count(), 1, "{with}");
    assert!(all["large"].starts_with("file 300000 ") && all["large"].ends_with(" large"));
    assert_eq!(all["other"], all["large"]);
    assert!(all["long"].contains(&"x/".repeat(100)) && all["short"].starts_with("link etc "));
    assert!(all["disk"].contains("major: 259, minor: 70000"), "{}", all["disk"]);
    assert!(all["null"].contains("major: 1, minor: 3"));
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let code = output.status.code();
    // e2fsck tells by 1 that it did something.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(code == Some(0) || program.ends_with("e2fsck") && code == Some(1), "{said}");
}

#[test]
fn what_others_made_is_read_with_its_indexes_holes_and_many_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let (root, image) = (dir.path().join("root"), dir.path().join("image"));
    fs::create_dir_all(root.join("many")).unwrap();
    for number in 0..3000 {
        fs::write(root.join(format!("many/a rather long name to fill blocks, {number}")), "x")
            .unwrap();
    }
    let holes = File::create(root.join("holes")).unwrap();
    for number in 0..1000 {
        holes.write_all_at(b"some", number * 12_288).unwrap();
    }
    holes.set_len(20 << 20).unwrap();
    let mut plain = File::create(root.join("plain")).unwrap();
    plain.write_all(&[9; 100_000]).unwrap();
    fs::set_permissions(root.join("plain"), PermissionsExt::from_mode(0o4711)).unwrap();
    symlink("x/".repeat(60), root.join("long")).unwrap();
    let (root, image) = (root.display().to_string(), image.display().to_string());
    run("/sbin/mke2fs", &["-q", "-t", "ext4", "-d", &root, &image, "200M"]);
    run("/sbin/e2fsck", &["-fyD", &image]);
    let volume = open(Path::new(&image)).unwrap();
    let all = listing(&volume).unwrap();
    assert_eq!(all.keys().filter(|name| name.starts_with("many/")).count(), 3000);
    assert!(all["long"].contains(&"x/".repeat(60)));
    let mut seen = BTreeMap::new();
    volume
        .walk(&[], &mut |found: Found| {
            if let Content::File { mut contents, .. } = found.content
                && [&b"holes"[..], b"plain"].contains(&found.path.as_slice())
            {
                let mut bytes = vec![];
                contents.read_to_end(&mut bytes)?;
                seen.insert(found.path, bytes);
            }
            Ok::<_, ReadError>(true)
        })
        .unwrap();
    for (name, bytes) in seen {
        let name = String::from_utf8(name).unwrap();
        assert!(bytes == fs::read(Path::new(&root).join(&name)).unwrap(), "{name}");
    }
    // From a directory on.
    let mut below = 0;
    volume
        .walk(&[b"many"], &mut |_: Found| {
            below += 1;
            Ok::<_, ReadError>(true)
        })
        .unwrap();
    assert_eq!(below, 3001);
}

#[test]
fn a_disk_that_is_not_clean_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    ours(&path);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut word = [0; 4];
    file.read_exact_at(&mut word, 1024 + 0x60).unwrap();
    word[0] |= 4;
    file.write_all_at(&word, 1024 + 0x60).unwrap();
    assert!(matches!(open(&path), Err(ReadError::NotClean)));
    fs::write(&path, [0; 8192]).unwrap();
    assert!(matches!(open(&path), Err(ReadError::NotExt4)));
    fs::write(&path, "short").unwrap();
    assert!(matches!(open(&path), Err(ReadError::Io(_))));
}

/// Bytes of the tables, changed at random: whatever comes of it, it comes to an end.
#[test]
fn a_damaged_disk_is_an_error_or_something_else_and_never_the_end_of_us() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    ours(&path);
    let whole = fs::read(&path).unwrap();
    let interesting: Vec<usize> = whole
        .iter()
        .enumerate()
        .filter(|(_, byte)| ![0, 3].contains(*byte))
        .map(|(at, _)| at)
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 1).unwrap()
    };
    let mut errors = 0;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random() % 4 {
            let at = interesting[random() % interesting.len()];
            bytes[at] = random().to_le_bytes()[0];
        }
        let damaged = Volume::open(Arc::new(Memory(bytes)));
        errors += usize::from(damaged.and_then(|volume| listing(&volume)).is_err());
    }
    assert!(errors > 10, "{errors}");
}

struct Memory(Vec<u8>);

impl ReadAt for Memory {
    fn read_at(&self, into: &mut [u8], at: u64) -> std::io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.0.get(at..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
