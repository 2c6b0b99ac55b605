//! Workspaces in real guests, in an image that has neither git nor tar worth the name.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Host, Running, new_host, noise, until};

const LIMIT: Duration = Duration::from_secs(60);

fn git(host: &Host, line: &str) {
    let repo = host.dir.join("repo");
    let args = line.split_whitespace();
    let ended = Command::new("git").arg("-C").arg(&repo).args(args).status().unwrap();
    assert!(ended.success(), "git {line}");
}

fn write(host: &Host, path: &str, content: &[u8]) {
    let file = host.dir.join("repo").join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

fn repository(host: &Host) -> String {
    write(host, "a", b"one\n");
    write(host, "src/b", b"two\n");
    write(host, ".gitignore", b"target/\n");
    git(host, "init -q -b main");
    git(host, "config user.name Ann");
    git(host, "config user.email ann@example.org");
    git(host, "add -A");
    git(host, "commit -q -m first");
    host.dir.join("repo").display().to_string()
}

#[test]
fn a_repository_is_worked_on_in_a_guest_and_comes_back() {
    let host = new_host!();
    let repo = repository(&host);
    let exec = |command: &str| host.banger(&["vm", "exec", "g", "--", "sh", "-c", command]);
    let first = host.banger(&["vm", "run", "--name", "g", &repo, "--", "cat", "a", "src/b"]);
    assert_eq!(first.ok(), "one\ntwo\n");
    assert!(host.banger(&["ps"]).ok().contains(" /root/repo "));
    exec("mkdir target; echo built > target/out; echo more >> a; echo new > c").ok();
    write(&host, "src/b", b"edited here\n");
    let refused = host.banger(&["vm", "workspace", "prepare", "g", &repo]).expect(1);
    assert!(refused.stderr.contains("modified: a\n"), "{}", refused.stderr);
    host.banger(&["vm", "workspace", "export", "g", "--apply"]).ok();
    assert_eq!(fs::read_to_string(host.dir.join("repo/a")).unwrap(), "one\nmore\n");
    host.banger(&["vm", "workspace", "prepare", "g", &repo, "--include-untracked"]).expect(1);
    let discard = ["vm", "workspace", "prepare", "g", &repo, "--include-untracked"];
    host.banger(&[discard.as_slice(), &["--discard-guest"]].concat()).ok();
    assert_eq!(exec("cat a src/b c target/out").ok(), "one\nmore\nedited here\nnew\nbuilt\n");
    // A user who may not enter /root is at home, with a job as well; a place that was named is no other.
    exec("echo ann:x:7:7::/tmp:/bin/sh >> /etc/passwd; chmod 700 /root").ok();
    let ann = |args: &[&str]| {
        let all = [&["vm", "exec", "-u", "ann"], args, &["g", "--", "sh", "-c", "pwd; id -u"]];
        host.banger(&all.concat())
    };
    let home = ann(&[]);
    assert!(home.stderr.contains("ann may not enter the workspace /root/repo"), "{}", home.stderr);
    assert_eq!(home.ok(), "/tmp\n7\n");
    let job = ann(&["--detach"]).ok();
    let logs = ["vm", "logs", "-f", "--job", job.trim(), "g"];
    assert_eq!(host.banger(&logs).ok(), "/tmp\n7\n");
    for args in [["-w", "/root/repo"].as_slice(), &["--detach", "-w", "/root/repo"]] {
        let refused = ann(args).expect(126);
        assert!(refused.stderr.contains("/root/repo: Permission denied"), "{}", refused.stderr);
    }
    // The record is the daemon's, and the tree the VM's: both outlast a stop.
    host.banger(&["vm", "stop", "g"]).ok();
    host.banger(&["vm", "workspace", "status", "g"]).expect(0);
    let again = host.banger(&["vm", "run", "--include-untracked", &repo, "--", "cat", "c"]);
    assert!(again.stderr.contains("g is used again"), "{}", again.stderr);
    assert_eq!(again.ok(), "new\n");
    host.banger(&["vm", "delete", "g"]).ok();
    host.banger(&["vm", "workspace", "status", "g"]).expect(4);
}

#[test]
fn a_vm_that_is_killed_in_the_middle_keeps_the_old_tree() {
    let host = new_host!();
    let repo = repository(&host);
    host.banger(&["vm", "run", "-d", "--name", "g", &repo]).ok();
    write(&host, "a", b"changed\n");
    write(&host, "large", &noise(48 << 20));
    git(&host, "add large");
    let mut command = host.banger_command(&["vm", "workspace", "prepare", "g", &repo]);
    let mut preparing = Running::start(command.stdin(Stdio::null()));
    // By SSH, for the lane is taken: something of it has arrived.
    let look = "test -n \"$(find /root/repo/.git/banger/stage -size +100k)\"";
    until("content has arrived", LIMIT, || {
        let args = ["vm", "exec", "--no-workspace", "g", "--", "sh", "-c", look];
        host.banger(&args).code == Some(0)
    });
    host.banger(&["vm", "kill", "g"]).ok();
    preparing.kill();
    host.banger(&["vm", "start", "g"]).ok();
    let exec = |command: &str| {
        host.banger(&["vm", "exec", "--no-workspace", "g", "--", "sh", "-c", command])
    };
    assert_eq!(exec("cat /root/repo/a; ls /root/repo").ok(), "one\na\nsrc\n");
    host.banger(&["vm", "workspace", "prepare", "g", &repo]).ok();
    let sizes = exec("cat /root/repo/a; wc -c < /root/repo/large; ls /root/repo/.git/banger");
    assert_eq!(sizes.ok(), format!("changed\n{}\nkept\n", 48 << 20));
}

#[test]
fn a_disk_that_is_too_small_leaves_the_old_tree_and_says_so() {
    let host = new_host!();
    let repo = repository(&host);
    let run = ["vm", "run", "-d", "--name", "g", "--work-disk-size", "64M", &repo];
    host.banger(&run).ok();
    write(&host, "large", &noise(96 << 20));
    write(&host, "a", b"changed\n");
    git(&host, "add large");
    let refused = host.banger(&["vm", "workspace", "prepare", "g", &repo]).expect(1);
    assert!(refused.stderr.contains("No space left on device"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: the guest has what it had"), "{}", refused.stderr);
    let a = host.banger(&["vm", "exec", "--no-workspace", "g", "--", "cat", "/root/repo/a"]);
    assert_eq!(a.ok(), "one\n");
    git(&host, "rm -q -f --cached large");
    host.banger(&["vm", "workspace", "prepare", "g", &repo]).ok();
    assert_eq!(host.banger(&["vm", "exec", "g", "--", "cat", "a"]).ok(), "changed\n");
}

#[test]
fn seventy_thousand_files_are_worked_on_as_a_few_are() {
    const FILES: usize = 70_000;
    let host = new_host!();
    for n in 0..FILES {
        write(&host, &format!("d{}/e{}/f{n}", n / 1000, n / 100), format!("file {n}\n").as_bytes());
    }
    let repo = repository(&host);
    // A disk for them has more inodes than the usual one of a test.
    let spec = ["--name", "g", "--memory", "384M", "--work-disk-size", "4G"];
    host.banger(&[&["vm", "run", "-d"], spec.as_slice(), &[&repo]].concat()).ok();
    let workspace =
        |verb: &str, args: &[&str]| host.banger(&[&["vm", "workspace", verb, "g"], args].concat());
    let exec = |command: &str| host.banger(&["vm", "exec", "g", "--", "sh", "-c", command]);
    let clean = exec("cat d69/e699/f69999; ls d*/* | grep -c ^f").expect(0);
    assert_eq!((clean.stdout.as_str(), clean.stderr.as_str()), ("file 69999\n70000\n", ""));
    workspace("status", &[]).expect(0);
    write(&host, "d0/e0/f7", b"changed\n");
    fs::remove_file(host.dir.join("repo/d69/e699/f69999")).unwrap();
    let stale = exec("cat d0/e0/f7").expect(0);
    assert_eq!(stale.stdout, "file 7\n");
    assert!(stale.stderr.contains("is stale (1 file modified, 1 removed)"), "{}", stale.stderr);
    let again = workspace("prepare", &[&repo, "--json"]).ok();
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["files"], &again["sent_files"]), (&(FILES + 2).into(), &1.into()));
    exec("cat d0/e0/f7; ! ls d69/e699/f69999").ok();
    exec("echo of the guest > d1/e10/f1000; rm d1/e10/f1001; echo new > d1/new").ok();
    let stat = workspace("export", &["--stat"]).ok();
    assert!(stat.contains(" 5 files changed"), "{stat}");
    let applied = workspace("export", &["--apply"]).ok();
    assert_eq!(applied, "written: d1/e10/f1000\nwritten: d1/new\nremoved: d1/e10/f1001\n");
}
