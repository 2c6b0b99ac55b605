//! A transfer that is cut short leaves the tree that was; one that was committed is finished.

use std::fs;
use std::sync::Arc;

use banger::host::workspace::{PlanOptions, WorkspaceError as W, prepare};
use banger_agent::contract::workspace::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Place, agent};

async fn prepare_cut(place: &Place, after: usize) -> Result<(), W> {
    prepare_through(place, after).await.0
}

/// Lets so many bytes of the host's through and then hangs up, as a VM that is killed does. Tells how
/// many it were.
pub(super) async fn prepare_through(place: &Place, after: usize) -> (Result<(), W>, usize) {
    let plan = Arc::new(place.plan(PlanOptions::default()).unwrap());
    let (ours, theirs) = tokio::io::duplex(4096);
    let (stream, mut child) = agent();
    let path = place.guest().display().to_string();
    let cut = async move {
        let (mut from_agent, mut to_agent) = tokio::io::split(stream);
        let (mut from_host, mut to_host) = tokio::io::split(theirs);
        let carry = async move {
            let mut left = after;
            let mut buffer = vec![0; 1024];
            while left > 0 {
                let room = left.min(buffer.len());
                match from_host.read(&mut buffer[..room]).await {
                    Ok(0) | Err(_) => return after - left,
                    Ok(length) if to_agent.write_all(&buffer[..length]).await.is_ok() => {
                        left -= length;
                    }
                    Ok(_) => return after - left,
                }
            }
            child.kill().await.unwrap();
            after
        };
        let answers = async move { drop(tokio::io::copy(&mut from_agent, &mut to_host).await) };
        tokio::join!(carry, answers).0
    };
    let (sent, bytes) = tokio::join!(prepare(plan, &path, false, ours), cut);
    (sent.map(drop), bytes)
}

#[tokio::test]
async fn whatever_was_sent_the_old_tree_stays_or_the_new_one_is_whole() {
    let place = Place::new();
    let large: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    place.write("large", &large);
    place.commit("large");
    for after in [50, 700, 5_000, 60_000] {
        prepare_cut(&place, after).await.unwrap_err();
        assert!(!place.guest().exists(), "cut after {after}");
    }
    place.prepare().await.unwrap();
    place.write("a.txt", "changed\n");
    place.write("large", &large.replace("line", "LINE"));
    let mut done = 0;
    for after in [50, 700, 5_000, 60_000, 150_000, 200_000, 400_000] {
        let cut = prepare_cut(&place, after).await;
        let (a, b) = (place.read_guest("a.txt").unwrap(), place.read_guest("large").unwrap());
        match cut {
            Err(_) => assert_eq!((a.as_str(), b == large), ("one\n", true), "cut after {after}"),
            Ok(()) => {
                assert_eq!((a.as_str(), b == large), ("changed\n", false), "after {after}");
                done += 1;
            }
        }
    }
    assert!(done > 0, "the last one was let through");
    place.prepare().await.unwrap();
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("changed\n"));
    let inside: Vec<_> = fs::read_dir(place.guest().join(".git/banger"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(inside, ["kept"], "nothing is left of those that were cut");
}

#[tokio::test]
async fn two_at_once_are_refused() {
    let place = Place::new();
    place.prepare().await.unwrap();
    let (mut first, _agent) = agent();
    let open = banger_agent::contract::workspace::Ask::Open {
        path: place.guest().to_str().unwrap().into(),
    };
    first.write_all(&banger_agent::contract::workspace::record(&open).unwrap()).await.unwrap();
    first.read_u8().await.unwrap();
    let refused = place.prepare().await.unwrap_err();
    assert!(matches!(refused, W::Refused { code: Refusal::Busy, .. }), "{refused:?}");
    drop(first);
    // It has its lock until it has seen that nobody is left.
    for _ in 0..1000 {
        match place.prepare().await {
            Err(W::Refused { code: Refusal::Busy, .. }) => tokio::task::yield_now().await,
            other => return drop(other.unwrap()),
        }
    }
    panic!("the lock stays");
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_tree() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can make a small disk");
        return;
    }
    let place = Place::new();
    let disk = place.dir.path().join("guest");
    fs::create_dir(&disk).unwrap();
    let _disk = SmallDisk::mount(&disk);
    place.prepare().await.unwrap();
    place.write("a.txt", "changed\n");
    let noise = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    fs::write(place.repo().join("src/b.txt"), noise.collect::<Vec<u8>>()).unwrap();
    let refused = place.prepare().await.unwrap_err();
    assert!(matches!(refused, W::Refused { code: Refusal::NoSpace, .. }), "{refused:?}");
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("one\n"));
    place.write("src/b.txt", "small again\n");
    place.prepare().await.unwrap();
    assert_eq!(place.read_guest("a.txt").as_deref(), Some("changed\n"));
    assert_eq!(place.read_guest("src/b.txt").as_deref(), Some("small again\n"));
}

/// Goes with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("size=1m")).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap_or_default();
    }
}
