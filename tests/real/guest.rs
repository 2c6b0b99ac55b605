//! Commands in a guest behave as commands at home.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Outcome, new_host};

#[test]
fn exec_carries_streams_environment_and_every_kind_of_end() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g", "-e", "FROM_RUN=one"]).ok();
    let exec = |args: &[&str]| {
        let mut all = vec!["vm", "exec"];
        all.extend(args);
        host.banger(&all)
    };
    // Streams stay apart, arguments are not split or expanded.
    let apart = exec(&["g", "--", "sh", "-c", "echo out; echo err >&2"]).expect(0);
    assert_eq!((apart.stdout.as_str(), apart.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(exec(&["g", "--", "echo", "a  b", "$HOME", "*"]).ok(), "a  b $HOME *\n");
    // The VM's environment, and this command's.
    let env = exec(&["-e", "MINE=two", "g", "--", "sh", "-c", "echo $FROM_RUN $MINE"]);
    assert_eq!(env.ok(), "one two\n");
    // Ends: a code, a signal, what cannot be run.
    exec(&["g", "--", "sh", "-c", "exit 42"]).expect(42);
    exec(&["g", "--", "sh", "-c", "kill -TERM $$"]).expect(128 + 15);
    exec(&["g", "--", "no-such-program"]).expect(127);
    exec(&["g", "--", "/etc/passwd"]).expect(126);
    exec(&["nobody", "--", "true"]).expect(125);
    // Users, directories, and no input.
    exec(&["g", "--", "sh", "-c", "echo ann:x:7:7::/tmp:/bin/sh >> /etc/passwd"]).ok();
    assert_eq!(exec(&["-u", "ann", "g", "--", "sh", "-c", "id -u; pwd"]).ok(), "7\n/tmp\n");
    assert_eq!(exec(&["-w", "/usr", "g", "--", "pwd"]).ok(), "/usr\n");
    assert_eq!(exec(&["-n", "g", "--", "cat"]).ok(), "");
    exec(&["-u", "nobody", "g", "--", "true"]).expect(125);
}

#[test]
fn megabytes_pass_both_ways_unharmed() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let data: Vec<u8> =
        (0..8_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let mut child = host
        .banger_command(&[
            "vm",
            "exec",
            "g",
            "--",
            "sh",
            "-c",
            "cat > /root/x; cat /root/x /root/x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let feeder = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 2 * data.len());
    assert!(output.stdout.starts_with(&data) && output.stdout.ends_with(&data));
}

#[test]
fn a_long_stream_costs_no_memory_at_either_end() {
    /// More than either end may take, so that whoever keeps it is seen.
    const LENGTH: u64 = 64 << 20;
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let agents = "for status in /proc/[0-9]*/status; do grep -q banger-agent $status && \
                  grep VmRSS $status; done 2> /dev/null | tr -dc '0-9\\n'";
    let most = |text: String| text.lines().filter_map(|line| line.parse::<u64>().ok()).max();
    let before = most(host.banger(&["vm", "exec", "g", "--", "sh", "-c", agents]).ok());
    for (there, here) in [
        ("wc -c".to_owned(), format!("head -c {LENGTH} /dev/zero | \"$0\" \"$@\"")),
        (format!("head -c {LENGTH} /dev/zero"), "\"$0\" \"$@\" < /dev/null | wc -c".to_owned()),
    ] {
        let banger = host.dir.join("bin/banger").display().to_string();
        let line = ["-c", &here, &banger, "vm", "exec", "g", "--", "sh", "-c", &there];
        let mut shell = host.command("sh", &line).stdout(Stdio::piped()).spawn().unwrap();
        let mut ours = 0;
        while shell.try_wait().unwrap().is_none() {
            ours = ours.max(resident_of(&banger, &there));
        }
        let counted = shell.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), LENGTH.to_string());
        assert!((1..48 << 10).contains(&ours), "banger took {ours} KiB");
    }
    let after = most(host.banger(&["vm", "exec", "g", "--", "sh", "-c", agents]).ok());
    assert!(after.unwrap() < before.unwrap() + (8 << 10), "{before:?} to {after:?} KiB");
}

/// Of the process of that program with that last argument, KiB; 0 if there is none.
fn resident_of(program: &str, last: &str) -> u64 {
    let process = |dir: std::fs::DirEntry| {
        let line = std::fs::read(dir.path().join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
        let is_it =
            words.first() == Some(&program.as_bytes()) && words.last() == Some(&last.as_bytes());
        let status = std::fs::read_to_string(dir.path().join("status")).ok().filter(|_| is_it)?;
        let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let dirs = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    dirs.filter_map(process).max().unwrap_or(0)
}

#[test]
fn openssh_is_at_home_in_the_guest() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    // The daemon's answer is for the CLI alone; a user's own key goes in by its own way.
    let key = host.dir.join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let refused = host.inside("ssh", &ssh_args(&host.dir, "10.77.0.2", &["true"]).each());
    assert_eq!(refused.code, Some(255), "an unknown key is refused: {refused:?}");
}

struct Words(Vec<String>);

impl Words {
    fn each(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

fn ssh_args(dir: &std::path::Path, address: &str, command: &[&str]) -> Words {
    let mut words = vec!["-F".to_owned(), "none".to_owned()];
    for option in ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"] {
        words.extend(["-o".to_owned(), option.to_owned()]);
    }
    words.extend(["-i".to_owned(), dir.join("key").display().to_string()]);
    words.extend(["-p".to_owned(), "22".to_owned(), format!("root@{address}")]);
    words.extend(command.iter().map(|word| (*word).to_owned()));
    Words(words)
}

#[test]
fn logs_tell_the_guests_story_while_it_runs_and_after() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    let say = "echo the-guest-said-this > /dev/console";
    host.banger(&["vm", "exec", "g", "--", "sh", "-c", say]).ok();
    let has = |outcome: Outcome| outcome.ok().contains("the-guest-said-this");
    // The agent tells what it did under the operation's id.
    let told = host.banger(&["--verbose", "vm", "exec", "g", "--", "false"]).expect(1).stderr;
    let op = told.lines().find_map(|line| line.strip_prefix("operation ")).unwrap().to_owned();
    crate::support::until("the operation's end", std::time::Duration::from_secs(10), || {
        host.banger(&["vm", "logs", "g"]).ok().contains(&op)
    });
    crate::support::until(
        "the console reaches the log",
        std::time::Duration::from_secs(10),
        || has(host.banger(&["vm", "logs", "g"])),
    );
    host.banger(&["vm", "stop", "g"]).ok();
    assert!(has(host.banger(&["vm", "logs", "g"])));
    let last = host.banger(&["vm", "logs", "--tail", "1", "g"]).ok();
    assert_eq!(last.lines().count(), 1, "{last}");
}
