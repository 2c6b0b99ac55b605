//! The table of what counts as stale.

use super::*;

const SCANNED: i64 = 1_000_000_000_000;
const LONG_AGO: i64 = SCANNED - 1_000_000_000;

fn stat(size: u64, changed_ns: i64) -> FileStat {
    FileStat {
        is_link: false,
        mode: 0o644,
        size,
        mtime_ns: changed_ns,
        ctime_ns: changed_ns,
        inode: 1,
    }
}

fn seen(path: &str, tracked: bool, stat: FileStat) -> SeenFile {
    SeenFile { path: path.into(), tracked, stat }
}

/// `a` and `b` were sent, with the content of digests 1 and 2.
fn manifest() -> Manifest {
    let sent = |path: &str, hash, size| SentFile {
        path: path.into(),
        stat: stat(size, LONG_AGO),
        hash: Digest([hash; 32]),
    };
    Manifest { scanned_ns: SCANNED, files: vec![sent("a", 1, 10), sent("b", 2, 20)] }
}

/// What is told when `a` is as given, whose content is that of digest `content`.
fn told(a: Option<FileStat>, content: u8, others: &[SeenFile]) -> String {
    let manifest = manifest();
    let mut files: Vec<_> = a.into_iter().map(|stat| seen("a", true, stat)).collect();
    files.push(seen("b", true, stat(20, LONG_AGO)));
    files.extend_from_slice(others);
    let suspects = manifest.suspects(&files);
    let hashes = suspects.into_iter().map(|at| (at, Digest([content; 32]))).collect();
    Staleness::of(None, manifest.drift(&files, &hashes)).to_string()
}

#[test]
fn what_differs_from_what_was_sent_is_stale_and_nothing_else() {
    let same = stat(10, LONG_AGO);
    let touched = stat(10, LONG_AGO + 5);
    let chmodded = FileStat { mode: 0o755, ..touched };
    let linked = FileStat { is_link: true, ..touched };
    let modified = "stale (1 file modified)";
    let new = |tracked| [seen("c", tracked, stat(1, SCANNED))];
    // Whether git calls it dirty does not matter: what was sent counts, not what was committed.
    assert_eq!(told(Some(same), 1, &[]), "clean");
    assert_eq!(told(Some(touched), 1, &[]), "clean", "touched, same content");
    assert_eq!(told(Some(touched), 9, &[]), modified, "edited, or reverted, at the same size");
    assert_eq!(told(Some(stat(11, LONG_AGO + 5)), 9, &[]), modified);
    assert_eq!(told(Some(chmodded), 1, &[]), modified);
    assert_eq!(told(Some(linked), 1, &[]), modified);
    assert_eq!(told(None, 1, &[]), "stale (1 file removed)");
    assert_eq!(told(Some(same), 1, &new(true)), "stale (1 file added)");
    assert_eq!(told(Some(same), 1, &new(false)), "stale (1 file untracked)", "only if meant");
    assert_eq!(told(Some(touched), 9, &new(false)), "stale (1 file modified, 1 untracked)");
}

#[test]
fn what_was_edited_within_the_scans_tick_is_hashed() {
    let mut manifest = manifest();
    manifest.files[0].stat = stat(10, SCANNED - 1);
    let files = [seen("a", true, stat(10, SCANNED - 1)), seen("b", true, stat(20, LONG_AGO))];
    assert_eq!(manifest.suspects(&files), [0], "the same stat proves nothing");
    let drift = manifest.drift(&files, &HashMap::from([(0, Digest([9; 32]))]));
    assert_eq!(drift.modified, [b"a"]);
    let drift = manifest.drift(&files, &HashMap::new());
    assert_eq!(drift.modified, [b"a"], "could not be read");
}

#[test]
fn only_what_stat_does_not_vouch_for_is_hashed() {
    let files = [seen("a", true, stat(10, LONG_AGO)), seen("b", true, stat(20, LONG_AGO))];
    assert!(manifest().suspects(&files).is_empty());
}

#[test]
fn words_for_people() {
    let head = HeadMoved { from: "1a2b3c4d5e".into(), to: "5d6e7f8a9b".into(), commits: Some(3) };
    assert_eq!(head.to_string(), "HEAD 1a2b3c4 -> 5d6e7f8 (3 commits)");
    let path = |n: u8| vec![b'f', b'0' + n];
    let drift = Drift {
        modified: vec![path(1), path(2)],
        untracked: vec![b"new\nline".to_vec()],
        ..Drift::default()
    };
    let stale = Staleness::of(Some(head), drift.clone());
    assert_eq!(stale.to_string(), "stale (HEAD moved: 3 commits; 2 files modified, 1 untracked)");
    assert_eq!(drift.lines(), ["2 modified: f1, f2", "1 untracked: \"new\\nline\""]);
    let many = Drift { added: (0..9).map(path).collect(), ..Drift::default() };
    assert_eq!(many.lines(), ["9 added: f0, f1, f2 and 6 more"]);
    assert_eq!(show_path(b"\xff\x1b"), "\"\\xff\\x1b\"");
    assert_eq!(Staleness::Unknown("gone".into()).to_string(), "unknown (gone)");
}
