//! Images are what root's GNU tar makes of their layers, file by file. Without root, and without loop
//! devices, only what needs neither is tried.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::archive::{Tar, build, debugfs, header, image, layer, run};
use crate::model::{ImageLimits, Size};

/// Whether files can be owned and marked as they are to be.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a name stands for, as far as tar keeps it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: Option<(i64, i64)>,
    device: u64,
    target: Vec<u8>,
    contents: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of the names that it has.
    same_as: Vec<u8>,
}

fn look(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let (mut seen, mut first) = (BTreeMap::new(), BTreeMap::new());
    let mut left = vec![root.to_owned()];
    let mut paths = vec![];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() == "lost+found" {
                continue;
            }
            if path.symlink_metadata().unwrap().is_dir() {
                left.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let meta = path.symlink_metadata().unwrap();
        let same_as = first.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let kind = meta.file_type();
        let one = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            // Of a directory it is that of the last change in it, which differs in order.
            mtime: (!meta.is_dir()).then_some((meta.mtime(), meta.mtime_nsec())),
            device: meta.rdev(),
            target: if kind.is_symlink() {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                vec![]
            },
            contents: if kind.is_file() { fs::read(&path).unwrap() } else { vec![] },
            xattrs: crate::host::image::import::xattrs(&path),
            same_as,
        };
        seen.insert(name, one);
    }
    seen
}

/// One layer after the other by GNU tar and by hand, as a container engine would.
fn by_tar(archives: &[Vec<u8>], into: &Path) {
    for bytes in archives {
        let archive = tempfile::NamedTempFile::new().unwrap();
        fs::write(archive.path(), bytes).unwrap();
        let (archive, into_text) = (archive.path().to_str().unwrap(), into.to_str().unwrap());
        let names = run("tar", &["-tf", archive, "--quoting-style=literal"]);
        for name in names.lines() {
            let path = into.join(name);
            let Some(hidden) =
                path.file_name().and_then(|name| name.to_str()?.strip_prefix(".wh."))
            else {
                continue;
            };
            let gone = path.with_file_name(hidden);
            let list: Vec<_> = if hidden == ".wh..opq" {
                let entries = fs::read_dir(path.parent().unwrap());
                entries
                    .map(|list| list.map(|entry| entry.unwrap().path()).collect())
                    .unwrap_or_default()
            } else {
                vec![gone]
            };
            for path in list {
                // It may be gone with the directory that it was in.
                drop(fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)));
            }
        }
        run(
            "tar",
            &[
                "-xpf",
                archive,
                "-C",
                into_text,
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--exclude=.wh.*",
            ],
        );
    }
}

/// Mounted read-only by the kernel; unmounted however the test ends.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(image: &Path) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (image.to_str()?, dir.path().to_str()?);
        #[allow(clippy::disallowed_methods, reason = "tests mount what they made")]
        let done = Command::new("mount").args(["-o", "loop,ro,noload", image, at]).output().ok()?;
        done.status.success().then_some(Self(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn assert_as_by_tar(archives: &[Vec<u8>]) {
    let (file, _) = image(archives);
    let dir = tempfile::tempdir().unwrap();
    by_tar(archives, dir.path());
    let Some(mounted) = Mounted::new(file.path()) else {
        eprintln!("skipped: no loop device can be mounted here");
        return;
    };
    let (ours, theirs) = (look(mounted.0.path()), look(dir.path()));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, theirs) in theirs {
        assert_eq!(ours[&name], theirs, "{}", String::from_utf8_lossy(&name));
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn an_image_is_what_gnu_tar_makes_of_its_layers() {
    if !is_root() {
        eprintln!("skipped: only root can extract owners and devices");
        return;
    }
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let owned = |mut header: Header, uid: u64, mode: u32| {
        header.set_uid(uid);
        header.set_gid(uid + 1);
        header.set_mode(mode);
        header
    };
    let mut null = header(EntryType::Char, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    let mut disk = header(EntryType::Block, 0);
    disk.set_device_major(259).unwrap();
    disk.set_device_minor(70_000).unwrap();
    let lower = Tar::new()
        .dir("./", 0o755)
        .dir("./bin/", 0o755)
        .raw(owned(header(EntryType::Regular, 2), 0, 0o4755), "./bin/su", "", b"su")
        .link(EntryType::Link, "./bin/sudo", "./bin/su")
        .raw(owned(header(EntryType::Regular, 3), 3_000_000, 0o600), "home/big owner", "", b"own")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("mtime", b"1600000000.123456789"),
        ])
        .file("bin/ping", b"ping")
        .pax(&[("SCHILY.xattr.user.a%3Db", b"x\0y\n=")])
        .file("noted", b"")
        .raw(null, "dev/null", "", b"")
        .raw(disk, "dev/disk", "", b"")
        .raw(header(EntryType::Fifo, 0), "run/fifo", "", b"")
        .link(EntryType::Symlink, "lib", "usr/lib")
        .dir("usr/lib", 0o711)
        .file("tab\tquote\"back\\slash", b"odd")
        .file("doubled", b"first")
        .file("doubled", b"second")
        .file(&format!("{}end", "long name/".repeat(30)), b"long")
        .link(EntryType::Symlink, "long", &"y/".repeat(120))
        .file("gone", b"")
        .file("old/a", b"a")
        .file("kind", b"a file");
    let upper = Tar::new()
        .file(".wh.gone", b"")
        .file("old/.wh..wh..opq", b"")
        .file("old/b", b"b")
        .link(EntryType::Link, "ping", "bin/ping")
        .file("usr/lib/so", b"so")
        .dir("kind", 0o1777)
        .file("kind/in", b"now a directory")
        .file("bin/su", b"other");
    assert_as_by_tar(&[lower.end(), upper.end()]);
}

/// As GNU tar itself writes them, in each of its forms.
#[test]
fn files_with_holes_are_read_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut file = File::create(root.join("holes")).unwrap();
    // More parts than a header of the oldest form has room for.
    for part in 0..40_u8 {
        std::os::unix::fs::FileExt::write_all_at(
            &file,
            &[part + 1; 5000],
            u64::from(part) * (1 << 20),
        )
        .unwrap();
    }
    file.flush().unwrap();
    file.set_len(50 << 20).unwrap();
    drop(file);
    fs::write(root.join("after"), b"after").unwrap();
    let whole = fs::read(root.join("holes")).unwrap();
    let archive = dir.path().join("a.tar");
    for form in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let archive = archive.to_str().unwrap();
        let mut args = vec!["-cSf", archive, "-C", root.to_str().unwrap(), "--sort=name"];
        args.extend(form);
        args.extend(["after", "holes"]);
        run("tar", &args);
        let bytes = fs::read(archive).unwrap();
        assert!(bytes.len() < 5 << 20, "tar found no holes");
        let (file, _) = image(&[bytes]);
        let out = dir.path().join("out");
        debugfs(file.path(), &format!("dump holes {}", out.display()));
        assert!(fs::read(&out).unwrap() == whole, "{form:?}");
        assert_eq!(debugfs(file.path(), "cat after"), "after");
        let names = debugfs(file.path(), "ls -p /");
        assert!(names.contains("/holes/") && !names.contains("GNUSparse"), "{names}");
    }
}

/// What a layer can do, by small numbers.
#[derive(Clone, Debug)]
enum Act {
    File(u8, u8),
    Dir(u8, u32),
    Link(u8, u8),
    Symlink(u8),
    Whiteout(u8),
    Opaque(u8),
}

/// No directory with the bit that makes what is in it belong to its group: in one, GNU tar leaves that
/// bit on new directories, whatever the archive says of them.
fn act() -> impl Strategy<Value = Act> {
    let mode = prop_oneof![Just(0o700_u32), Just(0o755), Just(0o1777), Just(0o1750)];
    prop_oneof![
        4 => (0..12_u8, any::<u8>()).prop_map(|(at, byte)| Act::File(at, byte)),
        2 => (0..6_u8, mode).prop_map(|(at, mode)| Act::Dir(at, mode)),
        1 => (0..12_u8, 0..12_u8).prop_map(|(at, to)| Act::Link(at, to)),
        1 => (0..12_u8).prop_map(Act::Symlink),
        1 => (0..12_u8).prop_map(Act::Whiteout),
        1 => (0..6_u8).prop_map(Act::Opaque),
    ]
}

/// Archives as a differ writes them: parents first, whiteouts first, no name twice, links to what
/// is there. What it may not write the tests above are about.
fn archives(layers: &[Vec<Act>]) -> Vec<Vec<u8>> {
    let dir = |at: u8| ["d0", "d1", "d0/e0", "d0/e1", "d1/e0", "d1/e1"][usize::from(at % 6)];
    let file = |at: u8| format!("{}/f{}", dir(at % 6), at / 6);
    let mut there: BTreeMap<String, bool> = BTreeMap::new(); // name → is it a plain file
    let mut out = vec![];
    for (number, acts) in layers.iter().enumerate() {
        let (mut marks, mut dirs, mut rest) = (Tar::new(), BTreeMap::new(), vec![]);
        let mut named = std::collections::BTreeSet::new();
        for act in acts {
            match act {
                Act::Whiteout(at) if number > 0 => {
                    let path = file(*at);
                    let (parent, name) = path.rsplit_once('/').unwrap();
                    if there.remove(&path).is_some() {
                        marks = marks.file(&format!("{parent}/.wh.{name}"), b"");
                    }
                }
                Act::Opaque(at) if number > 0 => {
                    let dir = dir(*at);
                    if there.keys().any(|name| name.starts_with(&format!("{dir}/"))) {
                        marks = marks.file(&format!("{dir}/.wh..wh..opq"), b"");
                        there.retain(|name, _| !name.starts_with(&format!("{dir}/")));
                    }
                }
                _ => {}
            }
        }
        for act in acts {
            let (name, plain) = match act {
                Act::Dir(at, mode) => {
                    dirs.insert(dir(*at).to_owned(), *mode);
                    continue;
                }
                Act::File(at, _) => (file(*at), true),
                Act::Symlink(at) => (file(*at), false),
                Act::Link(at, to) => {
                    let target = file(*to);
                    if there.get(&target) != Some(&true) || target == file(*at) {
                        continue;
                    }
                    (file(*at), true)
                }
                _ => continue,
            };
            if !named.insert(name.clone()) {
                continue;
            }
            there.insert(name.clone(), plain);
            rest.push((act, name));
        }
        let parents: Vec<_> = rest.iter().map(|(_, name)| name.clone()).collect();
        for name in
            parents.iter().map(String::as_str).chain(dirs.clone().keys().map(String::as_str))
        {
            let parts: Vec<_> = name.split('/').collect();
            for end in 1..parts.len() {
                dirs.entry(parts[..end].join("/")).or_insert(0o755);
            }
        }
        let mut tar = dirs.iter().fold(marks, |tar, (name, mode)| tar.dir(name, *mode));
        for (act, name) in rest {
            tar = match act {
                Act::File(at, byte) => tar.file(&name, &vec![*byte; usize::from(*at) * 700]),
                Act::Link(_, to) => tar.link(EntryType::Link, &name, &file(*to)),
                _ => tar.link(EntryType::Symlink, &name, "../target"),
            };
        }
        out.push(tar.end());
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_layers_are_what_gnu_tar_makes_of_them(
        layers in proptest::collection::vec(proptest::collection::vec(act(), 0..14), 1..4)
    ) {
        if is_root() {
            assert_as_by_tar(&archives(&layers));
        }
    }

    /// Any bytes at all are an error or a sound image.
    #[test]
    fn any_damage_is_an_error_or_a_sound_image(
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = Tar::new()
            .dir("d", 0o755)
            .file("d/a", &[1; 700])
            .link(EntryType::Link, "b", "d/a")
            .pax(&[("SCHILY.xattr.user.x", b"y")])
            .file("c", b"c")
            .file("d/.wh.a", b"")
            .end();
        let len = bytes.len();
        for (at, byte) in flips {
            bytes[at % len] ^= byte;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let small = ImageLimits { size: Size::from_bytes(1 << 20), ..ImageLimits::default() };
        if build(&[layer("one", bytes, None)], &small, file.path()).is_ok() {
            run("/sbin/e2fsck", &["-fn", file.path().to_str().unwrap()]);
        }
    }
}
