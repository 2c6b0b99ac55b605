//! Both halves on this machine, a socket between them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use banger_copy::{
    CopyError, Item, Progress, Receiver, receive, receive_stream, send, send_items, send_stream,
};
use tempfile::TempDir;

const HOW: Receiver = Receiver { durable: true, modes: 0o7777 };

type Ends = (Result<(Progress, Vec<PathBuf>), CopyError>, Result<Progress, CopyError>);

/// What becomes of a copy whose sender says no more after so many bytes.
fn copy_cut(paths: &[PathBuf], to: &Path, limit: usize) -> Ends {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let to = to.to_owned();
    let receiver = thread::spawn(move || {
        let answers = theirs.try_clone().unwrap();
        receive(HOW, &to, theirs, answers, &mut |_| {})
    });
    let cut = Cut { to: ours.try_clone().unwrap(), left: limit };
    let sent = send(paths, cut, ours, &mut |_| {});
    (sent, receiver.join().unwrap())
}

fn copy(paths: &[PathBuf], to: &Path) -> Progress {
    let (sent, received) = copy_cut(paths, to, usize::MAX);
    let (sent, received) = (sent.unwrap().0, received.unwrap());
    assert_eq!(sent, received, "both ends count alike");
    sent
}

/// A connection that breaks.
struct Cut {
    to: UnixStream,
    left: usize,
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.left);
        if taken == 0 {
            self.to.shutdown(std::net::Shutdown::Both)?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.left -= taken;
        self.to.write(&bytes[..taken])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Everything that there can be of a tree.
fn tree(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(tree.join("a/data"), noise(1 << 20)).unwrap();
    fs::write(tree.join("a/nothing"), b"").unwrap();
    fs::write(tree.join("a/b").join(OsStr::from_bytes(b"a\n\xff '\"$")), b"strange").unwrap();
    fs::hard_link(tree.join("a/data"), tree.join("a/b/same")).unwrap();
    symlink("../a/data", tree.join("empty/link")).unwrap();
    symlink("/nowhere", tree.join("dangling")).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 32 << 20).unwrap();
    fs::set_permissions(tree.join("a/data"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o555)).unwrap();
    tree
}

/// Everything of a tree that counts, a line each.
fn told(dir: &Path) -> Vec<String> {
    let mut lines = vec![];
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            let content = match () {
                () if meta.is_file() => {
                    let bytes = fs::read(&path).unwrap();
                    let sum = bytes.iter().fold(0_u64, |sum, byte| {
                        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
                    });
                    format!("{} {sum} {}", bytes.len(), meta.nlink())
                }
                () if meta.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                () => String::new(),
            };
            let time = (meta.mtime(), meta.mtime_nsec());
            lines.push(format!("{name:?} {:o} {time:?} {content}", meta.mode()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_tree_arrives_as_it_was_and_a_second_time_nothing_of_it_is_sent() {
    let dir = TempDir::new().unwrap();
    let tree = tree(dir.path());
    let to = dir.path().join("there");
    let first = copy(std::slice::from_ref(&tree), &to);
    assert_eq!(told(&to), told(&tree));
    assert_eq!((first.done, first.kept), (first.total, 0));
    let allocated = fs::metadata(to.join("sparse")).unwrap().blocks() * 512;
    assert!(allocated < 1 << 20, "holes stay holes: {allocated}");
    let again = copy(&[tree.join(".")], &to);
    assert_eq!(again.kept, again.total, "{again:?}");
    assert_eq!(told(&to), told(&tree));
    // What has changed is sent, and nothing else.
    fs::write(tree.join("a/nothing"), b"no longer").unwrap();
    let changed = copy(&[tree.join(".")], &to);
    assert_eq!(changed.done - changed.kept, 9, "{changed:?}");
    assert_eq!(told(&to), told(&tree));
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(to.join("empty"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_was_broken_off_leaves_no_file_and_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let data = noise(4 << 20);
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, &data).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(to.join("from"), b"old").unwrap();
    for limit in [1, 100, 1000, 1 << 20, 1 << 20] {
        let (sent, received) = copy_cut(std::slice::from_ref(&from), &to, limit);
        assert!(matches!(sent, Err(CopyError::Broken(_))), "{sent:?}");
        assert!(matches!(received, Err(CopyError::Broken(_))), "{received:?}");
        assert_eq!(fs::read(to.join("from")).unwrap(), b"old", "not half of it, after {limit}");
    }
    let again = copy(&[from], &to);
    assert!(again.kept > 3 << 19, "{again:?}");
    assert!(fs::read(to.join("from")).unwrap() == data);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "no part is left");
}

#[test]
fn a_part_of_something_else_is_not_built_upon() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, noise(3 << 20)).unwrap();
    let (sent, _) = copy_cut(std::slice::from_ref(&from), &to, 2 << 20);
    assert!(sent.is_err());
    let other: Vec<u8> = noise(3 << 20).into_iter().map(|byte| !byte).collect();
    fs::write(&from, &other).unwrap();
    let again = copy(&[from], &to);
    assert_eq!(again.kept, 0);
    assert!(fs::read(&to).unwrap() == other);
}

#[test]
fn places_are_chosen_as_cp_does() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("f"), b"f").unwrap();
    fs::create_dir_all(at("d/below")).unwrap();
    fs::write(at("d/below/g"), b"g").unwrap();
    fs::create_dir(at("into")).unwrap();
    symlink("into", at("way")).unwrap();
    symlink("f", at("named")).unwrap();
    copy(&[at("f")], &at("new"));
    copy(&[at("f"), at("d")], &at("into"));
    copy(&[at("named")], &at("way"));
    copy(&[at("d")], &at("other/"));
    for (name, content) in [
        ("new", "f"),
        ("into/f", "f"),
        ("into/d/below/g", "g"),
        ("into/named", "f"),
        ("other/below/g", "g"),
    ] {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), content, "{name}");
    }
    assert!(!fs::symlink_metadata(at("into/named")).unwrap().is_symlink(), "it was followed");
    for (paths, to) in [
        (vec![at("f")], "none/"),
        (vec![at("f")], "none/x"),
        (vec![at("f"), at("d")], "none"),
        (vec![at("f"), at("d")], "f"),
        (vec![at("d")], "f"),
        (vec![at("absent")], "x"),
    ] {
        let (sent, received) = copy_cut(&paths, &at(to), usize::MAX);
        assert!(sent.is_err() && received.is_err(), "{paths:?} to {to}");
    }
    // The end that did not fail says what the other one said.
    let (sent, _) = copy_cut(&[at("f")], &at("none/x"), usize::MAX);
    assert!(
        matches!(&sent, Err(CopyError::There(why)) if why.contains("No such file")),
        "{sent:?}"
    );
    fs::create_dir(at("into/new")).unwrap();
    let (sent, _) = copy_cut(&[at("new")], &at("into"), usize::MAX);
    assert!(
        matches!(&sent, Err(CopyError::There(why)) if why.contains("Is a directory")),
        "{sent:?}"
    );
}

#[test]
fn items_have_places_of_their_own_and_leave_what_is_on_the_way_alone() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let tree = tree(dir.path());
    fs::write(at("f"), b"secret").unwrap();
    fs::create_dir_all(at("to/old")).unwrap();
    fs::set_permissions(at("to/old"), fs::Permissions::from_mode(0o750)).unwrap();
    let item = |path: PathBuf, name: &str| Item { path, name: name.into(), mode: 0o600 };
    let items = [
        item(at("f"), "f"),
        item(at("f"), "old/f"),
        item(at("f"), "new/below/f"),
        item(tree.clone(), "new/tree"),
    ];
    for _ in 0..2 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let to = at("to");
        let receiver = thread::spawn(move || {
            receive(HOW, &to, theirs.try_clone().unwrap(), theirs, &mut |_| {})
        });
        let answers = ours.try_clone().unwrap();
        send_items(&items, ours, answers, &mut |_| {}).unwrap();
        receiver.join().unwrap().unwrap();
    }
    for name in ["f", "old/f", "new/below/f"] {
        let place = at("to").join(name);
        assert_eq!(fs::read(&place).unwrap(), b"secret", "{name}");
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(at("to/old")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(told(&at("to/new/tree")), told(&tree));
}

#[test]
fn a_stream_becomes_a_file_and_a_file_a_stream() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("to");
    let data = noise(3 << 20);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let receiver = thread::spawn({
        let to = to.clone();
        move || receive(HOW, &to, theirs.try_clone().unwrap(), theirs, &mut |_| {})
    });
    let answers = ours.try_clone().unwrap();
    let sent = send_stream(data.as_slice(), (7, 8), ours, answers, &mut |_| {}).unwrap();
    assert_eq!((sent.done, receiver.join().unwrap().unwrap().done), (3 << 20, 3 << 20));
    assert!(fs::read(&to).unwrap() == data);
    let sparse = dir.path().join("sparse");
    let file = fs::File::create(&sparse).unwrap();
    file.write_all_at(&data, 8 << 20).unwrap();
    file.set_len(16 << 20).unwrap();
    for (path, fits) in [(&sparse, true), (&dir.path().to_owned(), false)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let path = path.clone();
        let sender =
            thread::spawn(move || send(&[path], theirs.try_clone().unwrap(), theirs, &mut |_| {}));
        let mut got = vec![];
        let received = receive_stream(&mut got, ours.try_clone().unwrap(), ours, &mut |_| {});
        assert_eq!((received.is_ok(), sender.join().unwrap().is_ok()), (fits, fits));
        assert!(!fits || got == fs::read(&sparse).unwrap());
    }
}

/// Frames as a sender would say them that keeps to no rule.
fn hostile(entries: &[(u8, u32, &str, &str)], to: &Path) -> Result<Progress, CopyError> {
    let mut said = vec![];
    let mut say = |kind: u8, payload: &[u8]| {
        said.push(kind);
        said.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        said.extend(payload);
    };
    for (kind, parent, name, target) in entries {
        let mut entry = vec![*kind];
        entry.extend(parent.to_le_bytes());
        entry.extend(0o755_u32.to_le_bytes());
        entry.extend([0; 12 + 8]);
        entry.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        entry.extend(name.as_bytes());
        entry.extend(target.as_bytes());
        say(1, &entry);
    }
    say(2, &[]);
    receive(HOW, to, said.as_slice(), io::sink(), &mut |_| {})
}

#[test]
fn a_hostile_sender_leads_nowhere() {
    const TOP: u32 = u32::MAX;
    const DIR: u8 = 0;
    const FILE: u8 = 1;
    const LINK: u8 = 2;
    let dir = TempDir::new().unwrap();
    let (outside, to) = (dir.path().join("outside"), dir.path().join("to"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&to).unwrap();
    let there = outside.display().to_string();
    symlink(&outside, to.join("old")).unwrap();
    let tries: [&[(u8, u32, &str, &str)]; 7] = [
        &[(FILE, TOP, "../outside/x", "")],
        &[(DIR, TOP, "..", ""), (FILE, 0, "x", "")],
        &[(LINK, TOP, "a", &there), (FILE, 0, "x", "")],
        &[(LINK, TOP, "a", &there), (DIR, TOP, "a", ""), (FILE, 1, "x", "")],
        &[(DIR, TOP, "old", ""), (FILE, 0, "x", "")],
        &[(DIR, TOP, "b", ""), (LINK, TOP, "b", &there), (FILE, 0, "x", "")],
        &[(FILE, TOP, "a\0b", "")],
    ];
    for entries in tries {
        let received = hostile(entries, &to);
        assert!(received.is_err(), "{entries:?}: {received:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{entries:?}");
    }
    // Words that make no sense end it.
    for said in [&[7_u8, 0, 0, 0, 0][..], &[77, 0, 0, 0, 0], &[1, 0xff, 0xff, 0xff, 0x7f]] {
        assert!(receive(HOW, &to, said, io::sink(), &mut |_| {}).is_err());
    }
}
