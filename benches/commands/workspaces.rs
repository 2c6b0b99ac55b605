//! Workspaces beside what one would do by hand, in the same guest: tar through OpenSSH for the first
//! time, rsync through OpenSSH for every other.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::openssh::Openssh;
use super::table::{Table, median, ms};

const FILES: usize = 10_000;
const FILE_BYTES: usize = 30_000;
const TOUCHED: usize = 20;
const FIRST: usize = 3;
const AGAIN: usize = 5;
const LOOKS: usize = 9;

pub(crate) fn measure(table: &mut Table, vm: &str, peer: &Openssh) {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    make(&repo);
    let (ssh, target) = (peer.line(), peer.host());
    let shell = |script: &str| {
        let began = Instant::now();
        let ended = Command::new("bash")
            .args(["-c", &format!("set -eo pipefail; {script}")])
            .current_dir(&repo)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(ended.success(), "{script}: {ended}");
        began.elapsed()
    };
    let banger = env!("CARGO_BIN_EXE_banger");
    let prepare = || shell(&format!("{banger} -q vm workspace prepare {vm} ."));
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..FIRST {
        shell(&format!(
            "{ssh} {target} 'rm -rf /root/repo /root/by-hand; mkdir /root/by-hand; sync'"
        ));
        ours.push(prepare());
        shell(&format!("{ssh} {target} sync"));
        theirs.push(shell(&format!(
            "git ls-files -z | tar -c --null -T - | {ssh} {target} 'tar -x -C /root/by-hand && sync'"
        )));
    }
    ratio(table, "first prepare, 10,000 files, 300 MB", &ours, "tar over ssh", &theirs, 0.7);

    let rsync = || {
        shell(&format!("rsync -a --delete --exclude .git -e '{ssh}' ./ {target}:/root/by-hand/"))
    };
    rsync();
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 0..AGAIN {
        for n in 0..TOUCHED {
            let file = repo.join(format!("d{}/f{n}", n % 100));
            std::fs::write(file, content(round * 1000 + n + FILES)).unwrap();
        }
        ours.push(prepare());
        theirs.push(rsync());
    }
    ratio(table, "re-sync after 20 files changed", &ours, "rsync over ssh", &theirs, 0.5);

    let look = || shell(&format!("{banger} vm workspace status {vm}"));
    let looks: Vec<_> = (0..LOOKS).map(|_| look()).collect();
    let taken = median(&looks);
    let met = taken < Duration::from_millis(100);
    table.row("whether it is stale, whole process", ms(taken), "< 100 ms", met);
}

fn ratio(
    table: &mut Table,
    what: &str,
    ours: &[Duration],
    peer: &str,
    theirs: &[Duration],
    goal: f64,
) {
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let measured = format!("{}; {peer} {}", ms(ours), ms(theirs));
    table.row(what, measured, format!("<= {goal} of {peer} (is {ratio:.2})"), ratio <= goal);
}

/// Half of it text as programs have it, half of it noise.
fn content(seed: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    while bytes.len() < FILE_BYTES / 2 {
        bytes.extend_from_slice(
            format!("    let value_{seed} = compute(line, {});\n", bytes.len()).as_bytes(),
        );
    }
    while bytes.len() < FILE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn make(repo: &Path) {
    for n in 0..FILES {
        let directory = repo.join(format!("d{}", n % 100));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("f{n}")), content(n)).unwrap();
    }
    // A commit of so many files would have git collect garbage behind our back.
    for line in [
        "init -q -b main",
        "config gc.auto 0",
        "config maintenance.auto false",
        "add -A",
        "-c user.name=b -c user.email=b@b commit -q -m all",
        "gc -q",
    ] {
        let git = Command::new("git").arg("-C").arg(repo).args(line.split(' ')).status().unwrap();
        assert!(git.success(), "git {line}");
    }
}
