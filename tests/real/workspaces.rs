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
