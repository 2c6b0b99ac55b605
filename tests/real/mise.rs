//! A repository's tools, in a guest whose image has a mise: here one that writes down what it is asked.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Host, Outcome, busybox_with, new_host};

/// Installs when it is let, and fails where the repository says so.
const MISE: &str = "#!/bin/sh
echo \"$PWD: $*\" >> /root/mise.log
case $1 in
    exec) shift 2; exec \"$@\" ;;
    install)
        until ! grep -q slow mise.toml || test -e /root/go; do sleep 0.1; done
        grep -q broken mise.toml && exit 3
        echo 'fetched a tool'
        echo 'it is done' >> /root/mise.log ;;
esac
";

fn git(host: &Host, line: &str) {
    let mut git = Command::new("git");
    git.arg("-C").arg(host.dir.join("repo")).args(line.split_whitespace());
    assert!(git.status().unwrap().success(), "git {line}");
}

/// What mise is told of the repository.
fn names_tools(host: &Host, text: &str) {
    fs::write(host.dir.join("repo/mise.toml"), text).unwrap();
    git(host, "add -A");
}

fn shell(host: &Host, args: &[&str], input: &str) -> Outcome {
    let mut command = host.banger_command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Outcome::of(child.wait_with_output().unwrap())
}

#[test]
fn the_tools_of_a_repository_are_installed_for_whoever_stays() {
    let host = new_host!();
    let tar = host.dir.join("mise.tar");
    busybox_with(&[("bin/mise", MISE)], &tar);
    host.banger(&["image", "import", "mise", &tar.display().to_string()]).ok();
    fs::create_dir(host.dir.join("repo")).unwrap();
    git(&host, "init -q -b main");
    names_tools(&host, "slow");
    git(&host, "-c user.name=Ann -c user.email=a@b commit -q -m first");
    let repo = host.dir.join("repo").display().to_string();
    let log = || {
        let args = ["vm", "exec", "--no-workspace", "g", "--", "cat", "/root/mise.log"];
        host.banger(&args).ok()
    };
    let done = "/root/repo: install\nit is done\n";
    // Nothing could be fetched: told before there is a VM.
    for args in [["vm", "run", "-d", &repo].as_slice(), &["vm", "run", &repo]] {
        let refused = host.banger(args).expect(125);
        for part in ["mise.toml names tools", "--nat", "--no-bootstrap"] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    assert_eq!(host.banger(&["vm", "list", "-q"]).ok(), "");
    // A command runs under mise, which installs nothing by itself.
    let run = ["vm", "run", "--name", "g", "--image", "mise", &repo, "--", "echo", "a  b"];
    assert_eq!(host.banger(&run).ok(), "a  b\n");
    let trusted = "trust --quiet /root/repo/mise.toml\n";
    let logged = log();
    assert!(logged.contains(trusted) && logged.ends_with("/root/repo: exec -- echo a  b\n"));
    // Beside a shell, which is there before it is done.
    let script = "touch /root/go; until grep -q 'it is done' /root/mise.log; do sleep 0.1; done\n";
    let stayed = shell(&host, &["vm", "run", &repo], script).expect(0);
    let line = "mise installs the repository's tools in the background: ";
    let hint = stayed.stderr.lines().find_map(|one| one.strip_prefix(line));
    let hint: Vec<&str> = hint.unwrap_or_else(|| panic!("{}", stayed.stderr)).split(' ').collect();
    assert_eq!(host.banger(&hint[1..]).ok(), "fetched a tool\n", "the log is the guest's");
    assert!(log().ends_with(done), "{}", log());
    // Not if it is not to.
    let before = log();
    let stayed = shell(&host, &["vm", "run", "--no-bootstrap", &repo], "pwd\n").expect(0);
    assert_eq!(stayed.stdout, "/root/repo\n");
    let after = log();
    assert!(!after[before.len()..].contains("install"), "{after}");
    // Waited for, where nobody stays; what fails is told.
    names_tools(&host, "broken");
    let failed = host.banger(&["vm", "run", "-d", &repo]).expect(125);
    let told = "g: mise install ended with status 3; the VM runs";
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
    names_tools(&host, "");
    let waited = host.banger(&["vm", "run", "-d", &repo]).expect(0);
    assert!(waited.stderr.contains("the repository's tools are installed"), "{}", waited.stderr);
    assert!(log().ends_with(done), "{}", log());
}
