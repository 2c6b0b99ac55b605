//! Disks that were not left clean are checked, by a program that can do nothing else.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use banger::host::disk::LocalDisks;
use banger::model::{Code, Size, VmId, chain};
use banger::ports::{BaseImage, CheckedDisk, DiskHost, DiskPlan, HostError, RootPlan};
use banger::wire::helper::{HelperBody, HelperOk};

use crate::support::{Host, OP, OWNER, is_root, new_vm, sh, wait_for};

/// A VM's disks, made as the daemon makes them.
struct Disks {
    host: Host,
    disks: LocalDisks,
    plan: DiskPlan,
    vm: VmId,
}

impl Disks {
    async fn new() -> Self {
        let (host, vm) = (Host::new(), new_vm());
        let size = Size::from_mib(16);
        let plan = DiskPlan {
            root: RootPlan::Overlay { size, uuid: [1; 16] },
            work: size,
            work_uuid: [2; 16],
        };
        let disks = LocalDisks::new(&host.path("state"), &host.path("vmrun")).unwrap();
        let disks = disks.with_helper(host.client());
        let base = BaseImage { path: host.path("none"), uuid: [3; 16], size, growable: false };
        disks.ensure_vm_disks(OP, vm, &plan, &base, None).await.unwrap();
        let this = Self { host, disks, plan, vm };
        for path in [this.dir(), this.root(), this.work(), this.host.path("state/vms")] {
            chown(path, Some(OWNER), Some(OWNER)).unwrap();
        }
        this
    }

    fn dir(&self) -> PathBuf {
        self.disks.paths(self.vm).dir
    }

    fn root(&self) -> PathBuf {
        self.disks.paths(self.vm).overlay()
    }

    fn work(&self) -> PathBuf {
        self.disks.paths(self.vm).work()
    }

    async fn check(&self, repair: bool) -> Result<Vec<CheckedDisk>, HostError> {
        self.disks.check_disks(OP, self.vm, &self.plan, None, repair).await
    }

    /// So often the helper was asked; it notes that after its answer.
    fn were_checked(&self, times: usize) {
        let asked = |line: &serde_json::Value| line["request"] == "check-disk";
        let count = || self.host.audit().iter().filter(|line| asked(line)).count();
        wait_for("the helper's note", || count() >= times);
        assert_eq!(count(), times);
    }
}

fn debugfs(disk: &Path, request: &str) {
    sh("debugfs", &["-w", "-R", request, disk.to_str().unwrap()]);
}

fn is_sound(disk: &Path) -> bool {
    crate::support::run("e2fsck", &["-fn", disk.to_str().unwrap()]).status.success()
}

#[tokio::test]
async fn what_is_clean_costs_a_look_and_what_is_not_is_put_right() {
    if !is_root() {
        return;
    }
    let disks = Disks::new().await;
    assert_eq!(disks.check(false).await.unwrap(), []);
    // As a guest leaves it that was killed.
    debugfs(&disks.root(), "feature needs_recovery");
    let checked = disks.check(false).await.unwrap();
    assert_eq!((checked.len(), &checked[0].path, &checked[0].corrected), (1, &disks.root(), &None));
    disks.were_checked(1);
    // What costs nothing to put right.
    debugfs(&disks.work(), "ssv free_blocks_count 5");
    debugfs(&disks.work(), "ssv state 0");
    let checked = disks.check(false).await.unwrap();
    let said = checked[0].corrected.clone().unwrap();
    assert!(checked.len() == 1 && checked[0].path == disks.work(), "{checked:?}");
    assert!(!said.is_empty() && !said.concat().contains("/proc/"), "{said:?}");
    assert!(is_sound(&disks.root()) && is_sound(&disks.work()));
    assert_eq!(disks.check(false).await.unwrap(), []);
    disks.were_checked(2);
    assert!(!disks.disks.paths(disks.vm).check_log().exists());
}

#[tokio::test]
async fn damage_is_left_alone_until_a_repair_is_asked_for() {
    if !is_root() {
        return;
    }
    let disks = Disks::new().await;
    // Its root directory is gone.
    debugfs(&disks.work(), "clri <2>");
    debugfs(&disks.work(), "ssv state 2");
    for _ in 0..2 {
        let error = disks.check(false).await.unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{error:?}");
        assert!(chain(&error).contains("work.ext4"), "{error:?}");
        assert!(error.detail.concat().contains("UNEXPECTED INCONSISTENCY"), "{error:?}");
        assert!(!is_sound(&disks.work()));
    }
    let log = std::fs::read_to_string(disks.disks.paths(disks.vm).check_log()).unwrap();
    assert!(log.contains("UNEXPECTED INCONSISTENCY"), "{log}");
    let repaired = disks.check(true).await.unwrap();
    assert!(repaired.iter().any(|disk| disk.path == disks.work() && disk.corrected.is_some()));
    assert!(is_sound(&disks.work()));
}

#[tokio::test]
async fn who_checks_is_nobody_and_the_owner_keeps_the_disk() {
    if !is_root() {
        return;
    }
    let disks = Disks::new().await;
    debugfs(&disks.work(), "feature needs_recovery");
    disks.check(false).await.unwrap();
    let meta = std::fs::metadata(disks.work()).unwrap();
    // The last of the helper's range, which no VMM is given.
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1_900_004_095, OWNER, 0o660));
    // And is checked again all the same.
    debugfs(&disks.work(), "feature needs_recovery");
    assert_eq!(disks.check(false).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_checks_of_one_disk_wait_for_each_other_whoever_began_them() {
    if !is_root() {
        return;
    }
    let disks = Disks::new().await;
    debugfs(&disks.work(), "feature needs_recovery");
    // What a helper that was killed has left running.
    let left = std::fs::File::open(disks.work()).unwrap();
    rustix::fs::flock(&left, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let begun = Instant::now();
    let check = disks.check(false);
    tokio::pin!(check);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut check).await;
    assert!(early.is_err(), "checked under somebody else's hands");
    drop(left);
    assert_eq!(check.await.unwrap().len(), 1);
    assert!(begun.elapsed().as_secs() < 20);
}

#[tokio::test]
async fn what_is_no_disk_of_the_vm_is_refused() {
    if !is_root() {
        return;
    }
    let disks = Disks::new().await;
    let ask = |path: &Path| {
        let path = path.to_str().unwrap().to_owned();
        let log = disks.host.text("state/check.log");
        HelperBody::CheckDisk { vm: disks.vm.0, path, repair: true, log }
    };
    let (link, roots) = (disks.dir().join("link"), disks.dir().join("roots"));
    std::os::unix::fs::symlink(disks.work(), &link).unwrap();
    std::fs::copy(disks.work(), &roots).unwrap();
    for path in [link, roots, disks.dir()] {
        let answer = disks.host.client().call(OP, ask(&path)).await;
        assert!(answer.is_err(), "{}: {answer:?}", path.display());
    }
    // Whatever is in the disk: what reads it is told nothing but the disk.
    std::fs::write(disks.work(), "not a file system").unwrap();
    let answer = disks.host.client().call(OP, ask(&disks.work())).await.unwrap();
    assert_eq!(answer, HelperOk::Checked { status: 8 });
    wait_for("e2fsck to be gone", || !sh("ps", &["-eo", "args"]).contains("/proc/self/fd/0"));
}
