//! What the writer makes, as e2fsck and debugfs see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::host::image::ext4::digest_of;

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> (Self, Builder) {
        let rig = Self { dir: tempfile::tempdir().unwrap() };
        let file = File::options().read(true).write(true).create_new(true).open(rig.path());
        (rig, Builder::new(file.unwrap()))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image.ext4")
    }

    fn debugfs(&self, request: &str) -> String {
        let (out, err) = run("/sbin/debugfs", &["-R", request], &self.path());
        format!("{out}{err}")
    }

    fn check(&self) {
        let (out, _) = run("/sbin/e2fsck", &["-fn"], &self.path());
        assert!(out.contains("Pass 5") && !out.contains("? no"), "{out}");
        assert!(!out.contains("WARNING"), "{out}");
    }
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn run(program: &str, args: &[&str], path: &Path) -> (String, String) {
    let output = Command::new(program).args(args).arg(path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn meta(mode: u16) -> Meta {
    Meta { mode, mtime: 1_700_000_000, mtime_nsec: 5, ..Meta::default() }
}

fn put(builder: &mut Builder, path: &str, meta: Meta, contents: &[u8]) {
    builder.file(path.as_bytes(), meta, &mut &contents[..], contents.len() as u64).unwrap();
}

#[test]
fn an_empty_image_is_sound() {
    let (rig, builder) = Rig::new();
    let built = builder.finish().unwrap();
    rig.check();
    assert_eq!(std::fs::metadata(rig.path()).unwrap().len(), built.bytes);
}

#[test]
fn everything_an_inode_can_be_is_kept() {
    let (rig, mut builder) = Rig::new();
    builder.directory(b"/", meta(0o755)).unwrap();
    builder.directory(b"etc", meta(0o750)).unwrap();
    let owned = Meta { uid: 1000, gid: 70_000, ..meta(0o640) };
    put(&mut builder, "etc/shadow", owned, b"root:*\n");
    put(&mut builder, "bin/su", meta(0o4755), &vec![7; 10_000]);
    let mut capable = meta(0o755);
    capable.xattrs = BTreeMap::from([(
        b"security.capability".to_vec(),
        crate::host::image::ext4::xattr::capability(1 << 13),
    )]);
    put(&mut builder, "bin/ping", capable, b"elf");
    let mut large = meta(0o644);
    large.xattrs = BTreeMap::from([
        (b"user.note".to_vec(), vec![b'n'; 3000]),
        (b"trusted.x".to_vec(), b"y".to_vec()),
    ]);
    put(&mut builder, "noted", large, b"");
    builder.hard_link(b"bin/su2", b"/bin/su").unwrap();
    builder.symlink(b"lib", meta(0), b"usr/lib").unwrap();
    builder.symlink(b"long", meta(0), "x/".repeat(100).as_bytes()).unwrap();
    builder.special(b"dev/null", meta(0o666), Special::Char { major: 1, minor: 3 }).unwrap();
    builder.special(b"dev/big", meta(0o660), Special::Block { major: 259, minor: 70_000 }).unwrap();
    builder.special(b"fifo", meta(0o600), Special::Fifo).unwrap();
    put(&mut builder, "we \"ird\nname", meta(0o600), b"x");
    let built = builder.finish().unwrap();
    rig.check();

    let stat = rig.debugfs("stat /etc/shadow");
    assert!(stat.contains("Mode:  0640") && stat.contains("Size: 7"), "{stat}");
    assert!(stat.contains("User:  1000   Group: 70000"), "{stat}");
    assert!(stat.contains("mtime: 0x6553f100:00000014"), "{stat}");
    assert!(rig.debugfs("cat /etc/shadow").contains("root:*"));
    let su = rig.debugfs("stat /bin/su");
    assert!(su.contains("Mode:  04755") && su.contains("Links: 2"), "{su}");
    assert!(rig.debugfs("stat /lib").contains("Fast link dest: \"usr/lib\""));
    assert!(rig.debugfs("stat /long").contains("Size: 200"));
    let null = rig.debugfs("stat /dev/null");
    assert!(null.contains("character special") && null.contains("01:03"), "{null}");
    let big = rig.debugfs("stat /dev/big");
    assert!(big.contains("block special") && big.contains("259:70000"), "{big}");
    assert!(rig.debugfs("stat /fifo").contains("FIFO"));
    let capability = rig.debugfs("ea_get -x /bin/ping security.capability");
    assert!(capability.contains("01 00 00 02 00 20 00 00"), "{capability}");
    assert!(rig.debugfs("ea_list /noted").contains("user.note (3000)"));
    assert!(rig.debugfs("ea_get /noted trusted.x").contains('y'));

    let file = File::open(rig.path()).unwrap();
    assert_eq!(digest_of(&file, || Ok(())).unwrap(), built.digest);
    assert_eq!(uuid_of(built.digest), built.uuid);
    assert!(rig.debugfs("stats").contains("Filesystem UUID"));
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    let make = || {
        let (rig, mut builder) = Rig::new();
        put(&mut builder, "a", meta(0o644), b"one");
        put(&mut builder, "b/c", meta(0o644), &vec![3; 3_000_000]);
        let built = builder.finish().unwrap();
        (std::fs::read(rig.path()).unwrap(), built)
    };
    let ((one, first), (two, second)) = (make(), make());
    assert!(one == two && first == second);
    let (_rig, mut builder) = Rig::new();
    put(&mut builder, "a", meta(0o644), b"two");
    assert_ne!(builder.finish().unwrap().digest, first.digest);
}

#[test]
fn many_entries_and_full_directories_are_sound() {
    let (rig, mut builder) = Rig::new();
    for n in 0..40_000 {
        put(&mut builder, &format!("many/file-{n:05}"), meta(0o644), b"");
    }
    for n in 0..2000 {
        builder.directory(format!("deep/{n}/x").as_bytes(), meta(0o755)).unwrap();
    }
    builder.finish().unwrap();
    rig.check();
    assert!(rig.debugfs("stat /many/file-39999").contains("Mode:  0644"));
}

#[test]
fn a_large_file_has_extent_blocks_and_holes() {
    let (rig, mut builder) = Rig::new();
    let len: u64 = (700 << 20) + 1;
    let mut contents = io::repeat(0).take(len - 1).chain(&b"!"[..]);
    builder.file(b"large", meta(0o644), &mut contents, len).unwrap();
    builder.finish().unwrap();
    rig.check();
    use std::os::unix::fs::MetadataExt;
    assert!(std::fs::metadata(rig.path()).unwrap().blocks() * 512 < 4 << 20);
    assert!(rig.debugfs("stat /large").contains("Size: 734003201"));
}

#[test]
fn a_source_that_ends_early_is_an_error() {
    let (_rig, mut builder) = Rig::new();
    let error = builder.file(b"x", meta(0o644), &mut &b"short"[..], 100).unwrap_err();
    let BuildError::Copy { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
}

/// As a clone is used: mounted to be written, with the journal, and grown. (Guests grow it while it
/// is mounted: see the tests with real ones.)
#[test]
fn a_kernel_writes_to_it_and_it_grows() {
    let (rig, mut builder) = Rig::new();
    put(&mut builder, "a", meta(0o644), b"one");
    // Long enough that there are groups with copies of the superblock in it.
    let len: u64 = 420 << 20;
    builder.file(b"long", meta(0o644), &mut io::repeat(7).take(len), len).unwrap();
    builder.finish().unwrap();
    let at = rig.dir.path().join("at");
    std::fs::create_dir(&at).unwrap();
    let script = r#"
        set -e
        truncate -s 9G "$1"
        resize2fs "$1" >&2
        mount -o loop "$1" "$2" 2>/dev/null || { echo SKIP; exit 0; }
        trap 'umount "$2"' EXIT
        echo two > "$2/b"
        mkdir "$2/many"; for n in $(seq 300); do : > "$2/many/a-name-that-takes-room-$n"; done
        dd if=/dev/zero of="$2/big" bs=1M count=64 conv=fsync status=none
        df --output=size -BG "$2" | tail -1
    "#;
    #[allow(clippy::disallowed_methods, reason = "tests ask the kernel")]
    let output = Command::new("sh")
        .env("PATH", crate::host::files::SYSTEM_PATH)
        .args(["-c", script, "sh"])
        .args([rig.path(), at])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    match String::from_utf8_lossy(&output.stdout).trim() {
        "SKIP" => {} // a file system cannot be mounted here; the rest still holds
        size => assert_eq!(size, "9G"),
    }
    rig.check();
    assert!(rig.debugfs("stat <8>").contains("Size: 16777216"));
}
