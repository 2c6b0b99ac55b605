//! The port as a whole, on a real directory.

use std::fs::File;
use std::time::Duration;

use super::*;
use crate::model::DiskBackend;

const OP: OpId = OpId([0; 16]);
const IMAGE: Digest = Digest([1; 32]);
const KERNEL: Digest = Digest([2; 32]);

fn like(memory_mib: u32) -> Likeness {
    Likeness {
        image: IMAGE,
        kernel: KERNEL,
        init: "systemd".to_owned(),
        initrd: "/x/k-a.cpio".into(),
        vcpu: 1,
        memory_mib,
        root: DiskBackend::Overlay,
        console: false,
        disk: Size::from_mib(64),
        work_disk: Size::from_mib(64),
        vmm: "firecracker 1.17.0 kvm".to_owned(),
    }
}

fn host() -> (tempfile::TempDir, LocalWarm) {
    let dir = tempfile::tempdir().unwrap();
    let warm = LocalWarm::new(dir.path(), Size::from_bytes(0)).unwrap();
    (dir, warm)
}

async fn make(warm: &LocalWarm, like: &Likeness) -> Snapshot {
    let draft = warm.draft(OP, like, Size::from_mib(1)).await.unwrap();
    std::fs::write(draft.snapshot().dir.join("memory"), "remembers").unwrap();
    warm.keep(OP, like, draft).await.unwrap();
    found(warm, like).await.unwrap()
}

async fn found(warm: &LocalWarm, like: &Likeness) -> Option<Snapshot> {
    match warm.find(OP, like).await.unwrap() {
        Found::Snapshot(snapshot) => Some(snapshot),
        Found::Missing(_) | Found::BeingMade => None,
    }
}

fn entries(dir: &tempfile::TempDir) -> usize {
    std::fs::read_dir(dir.path().join("warm")).unwrap().count()
}

#[tokio::test]
async fn one_is_found_by_its_likeness_alone() {
    let (_dir, warm) = host();
    assert_eq!(found(&warm, &like(256)).await, None);
    let snapshot = make(&warm, &like(256)).await;
    assert_eq!(std::fs::read(snapshot.dir.join("memory")).unwrap(), b"remembers");
    let moved = Likeness { initrd: "/elsewhere/k-a.cpio".into(), ..like(256) };
    assert_eq!(found(&warm, &moved).await, Some(snapshot));
    let others = [
        Likeness { image: KERNEL, ..like(256) },
        Likeness { kernel: IMAGE, ..like(256) },
        Likeness { init: "any".to_owned(), ..like(256) },
        Likeness { initrd: "/x/k-b.cpio".into(), ..like(256) },
        Likeness { vcpu: 2, ..like(256) },
        like(257),
        Likeness { root: DiskBackend::Reflink, ..like(256) },
        Likeness { console: true, ..like(256) },
        Likeness { disk: Size::from_mib(65), ..like(256) },
        Likeness { work_disk: Size::from_mib(65), ..like(256) },
        Likeness { vmm: "firecracker 1.17.1 kvm".to_owned(), ..like(256) },
    ];
    for other in others {
        assert_eq!(found(&warm, &other).await, None, "{other:?}");
    }
}

#[tokio::test]
async fn only_one_at_a_time_makes_a_snapshot() {
    let (_dir, warm) = host();
    let Found::Missing(claim) = warm.find(OP, &like(256)).await.unwrap() else { panic!() };
    assert!(matches!(warm.find(OP, &like(256)).await.unwrap(), Found::BeingMade));
    assert!(matches!(warm.find(OP, &like(512)).await.unwrap(), Found::Missing(_)));
    drop(claim);
    assert!(matches!(warm.find(OP, &like(256)).await.unwrap(), Found::Missing(_)));
}

#[tokio::test]
async fn what_is_not_kept_or_not_whole_goes() {
    let (dir, warm) = host();
    let draft = warm.draft(OP, &like(256), Size::from_mib(1)).await.unwrap();
    std::fs::write(draft.snapshot().dir.join("memory"), "half").unwrap();
    assert_eq!(entries(&dir), 1);
    drop(draft);
    assert_eq!(entries(&dir), 0);
    for damage in ["cut", "more", "no-manifest"] {
        let snapshot = make(&warm, &like(256)).await;
        match damage {
            "cut" => std::fs::write(snapshot.dir.join("memory"), "").unwrap(),
            "more" => std::fs::write(snapshot.dir.join("stranger"), "").unwrap(),
            _ => std::fs::remove_file(snapshot.dir.join(manifest::NAME)).unwrap(),
        }
        assert_eq!(found(&warm, &like(256)).await, None, "{damage}");
        assert_eq!(entries(&dir), 0, "{damage}");
    }
}

#[tokio::test]
async fn no_room_is_said_before_anything_is_written() {
    let (dir, warm) = host();
    let refused = warm.draft(OP, &like(256), Size::from_bytes(1 << 60)).await.unwrap_err();
    assert_eq!(refused.code, Code::NoSpace);
    assert_eq!(entries(&dir), 0);
}

#[tokio::test]
async fn those_not_used_for_the_longest_make_room() {
    let (dir, warm) = host();
    for memory in 0..4 {
        let snapshot = make(&warm, &like(memory)).await;
        // As if it had been an hour ago; the later ones less.
        let file = File::options().append(true).open(snapshot.dir.join(manifest::NAME)).unwrap();
        let now = file.metadata().unwrap().modified().unwrap();
        file.set_modified(now - Duration::from_secs(3600 - u64::from(memory))).unwrap();
    }
    found(&warm, &like(0)).await.unwrap(); // used just now
    make(&warm, &like(9)).await;
    assert_eq!(entries(&dir), MOST);
    assert!(found(&warm, &like(0)).await.is_some() && found(&warm, &like(9)).await.is_some());
    assert_eq!(found(&warm, &like(1)).await, None);
}

#[tokio::test]
async fn a_sweep_leaves_what_can_still_be_used() {
    let (dir, warm) = host();
    make(&warm, &like(256)).await;
    let old = make(&warm, &like(512)).await;
    let text = std::fs::read_to_string(old.dir.join(manifest::NAME)).unwrap();
    let boot = manifest::host_boot().unwrap();
    std::fs::write(old.dir.join(manifest::NAME), text.replace(&boot, "another")).unwrap();
    std::fs::create_dir(dir.path().join("warm/.tmp-1-0-x")).unwrap();
    assert_eq!(warm.sweep(OP, &[IMAGE, KERNEL]).await.unwrap(), 2);
    assert!(found(&warm, &like(256)).await.is_some());
    assert_eq!(warm.sweep(OP, &[IMAGE]).await.unwrap(), 1);
    assert_eq!(entries(&dir), 0);
}
