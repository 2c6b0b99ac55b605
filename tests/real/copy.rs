//! `banger vm cp`: files and trees as they were, whole or not at all, whatever happens meanwhile.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Host, new_host, noise, sha256, until};

const LIMIT: Duration = Duration::from_secs(120);

fn shell(host: &Host, line: &str) -> String {
    host.banger(&["vm", "exec", "g", "--", "sh", "-c", line]).ok()
}

#[test]
fn trees_go_there_and_back_as_they_were() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let tree = host.dir.join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    let data = noise(3 << 20);
    fs::write(tree.join("a/data"), &data).unwrap();
    fs::set_permissions(tree.join("a/data"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(tree.join("a/data"), tree.join("same")).unwrap();
    symlink("a/data", tree.join("link")).unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"a\n\xff")), b"strange").unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(256 << 20).unwrap();
    sparse.write_all_at(b"end", (256 << 20) - 3).unwrap();
    let (there, back) = ("g:/root/tree", host.dir.join("back"));
    host.banger(&["vm", "cp", &tree.display().to_string(), there]).ok();
    let told = shell(
        &host,
        "cd /root/tree && sha256sum < a/data && ls -l a/data | cut -c 1-10 && readlink link && \
         [ a/data -ef same ] && cat a*f 2> /dev/null; ls | wc -l; du -k sparse | cut -f 1",
    );
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with(&sha256(&data)), "{told}");
    assert_eq!(lines[1..3], ["-rwxr-x--x", "a/data"], "{told}");
    assert!(lines.last().unwrap().parse::<u64>().unwrap() < 1024, "holes stay holes: {told}");
    host.banger(&["vm", "cp", there, &back.display().to_string()]).ok();
    for name in ["a/data", "same", "sparse", "link"] {
        let meta = |dir: &Path| fs::symlink_metadata(dir.join(name)).unwrap();
        let (before, after) = (meta(&tree), meta(&back));
        assert_eq!(before.mode(), after.mode(), "{name}");
        assert_eq!(before.mtime_nsec(), after.mtime_nsec(), "{name}");
        assert_eq!(before.nlink(), after.nlink(), "{name}");
        assert_eq!(before.len(), after.len(), "{name}");
    }
    assert!(fs::read(back.join("same")).unwrap() == data);
    assert_eq!(fs::read(back.join(OsStr::from_bytes(b"a\n\xff"))).unwrap(), b"strange");
    // The same again is not sent again.
    let again = host.banger(&["vm", "cp", &format!("{}/.", tree.display()), there]).expect(0);
    assert!(again.stderr.starts_with("0B copied"), "{}", again.stderr);
    // Streams.
    let mut to = host.banger_command(&["vm", "cp", "-", "g:stream"]);
    let mut child = to.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &data).unwrap();
    assert!(child.wait().unwrap().success());
    let mut from = host.banger_command(&["vm", "cp", "g:stream", "-"]);
    assert!(from.stdin(Stdio::null()).output().unwrap().stdout == data);
    // What cannot be is refused by name.
    for (from, to, why) in [
        ("/nowhere/x", "g:", "/nowhere/x: No such file"),
        ("g:/nowhere/x", "/tmp", "g: read /nowhere/x: No such file"),
        (&*host.dir.join("config.toml").display().to_string(), "g:/nowhere/x", "open /nowhere"),
    ] {
        let refused = host.banger(&["vm", "cp", from, to]).expect(1);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_of_a_file() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    shell(&host, "mkdir /root/small && mount -t tmpfs -o size=4m none /root/small");
    fs::write(host.dir.join("big"), noise(8 << 20)).unwrap();
    let big = host.dir.join("big").display().to_string();
    let full = host.banger(&["vm", "cp", &big, "g:/root/small/"]).expect(1);
    assert!(full.stderr.contains("/root/small/big: No space left on device"), "{}", full.stderr);
    assert_eq!(shell(&host, "ls -A /root/small"), "", "its room is free again");
}

/// A copy that has begun to write at the other end.
/// A copy that stands still in the middle, however fast it is: `there` looks at what has arrived.
fn halted(host: &Host, from: &str, to: &str, there: impl Fn() -> bool) -> Child {
    let mut command = host.banger_command(&["vm", "cp", from, to]);
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let counters = format!("/proc/{}/io", child.id());
    // Of files: sockets are not counted there.
    let moved = || {
        let counters = fs::read_to_string(&counters).unwrap();
        let words = counters.lines().filter_map(|line| line.split_once("char: "));
        words.map(|(_, count)| count.parse::<u64>().unwrap()).sum::<u64>() > 32 << 20
    };
    until("the copy is under way", LIMIT, moved);
    signal(&child, Signal::SIGSTOP);
    until("a part of it has arrived", LIMIT, there);
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn a_vm_killed_in_the_middle_leaves_no_file_at_either_end_and_the_copy_goes_on() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g", "--memory", "256M"]).ok();
    let data = noise(192 << 20);
    let big = host.dir.join("big");
    fs::write(&big, &data).unwrap();
    let big = big.display().to_string();
    shell(&host, "mkdir /root/d; sync");
    let mut child = halted(&host, &big, "g:/root/d/big", || {
        let sizes = "cat /root/d/.banger-*.part 2> /dev/null | wc -c";
        shell(&host, sizes).trim().parse::<u64>().unwrap() > 16 << 20
    });
    shell(&host, "sync"); // what is not on its disk yet goes with a VM that is killed
    host.banger(&["vm", "kill", "g"]).ok();
    signal(&child, Signal::SIGCONT);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    host.banger(&["vm", "start", "g"]).ok();
    assert_eq!(shell(&host, "ls /root/d"), "", "no half of it under its name");
    let again = host.banger(&["vm", "cp", &big, "g:/root/d/big"]).expect(0);
    assert!(again.stderr.contains("there already"), "{}", again.stderr);
    assert!(shell(&host, "sha256sum < /root/d/big").starts_with(&sha256(&data)));
    assert_eq!(shell(&host, "ls -A /root/d"), "big\n");
    // Out of the guest.
    let out = host.dir.join("out");
    fs::create_dir(&out).unwrap();
    let part = || {
        let mut entries = fs::read_dir(&out).unwrap().filter_map(Result::ok);
        entries.any(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 4 << 20))
    };
    let place = out.join("big").display().to_string();
    let mut child = halted(&host, "g:/root/d/big", &place, part);
    host.banger(&["vm", "kill", "g"]).ok();
    signal(&child, Signal::SIGCONT);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!out.join("big").exists());
    host.banger(&["vm", "start", "g"]).ok();
    host.banger(&["vm", "cp", "g:/root/d/big", &place]).ok();
    assert!(fs::read(out.join("big")).unwrap() == data);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}
