//! The port as a whole, with real file systems as e2fsck sees them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Instant;

use super::*;

const OP: OpId = OpId([0; 16]);

struct Rig {
    dir: tempfile::TempDir,
    disks: LocalDisks,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let disks = LocalDisks::new(&dir.path().join("state"), &dir.path().join("run")).unwrap();
    Rig { dir, disks }
}

fn plan(vm: VmId) -> DiskPlan {
    DiskPlan::for_vm(vm, Size::from_mib(8192), Size::from_mib(64))
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn e2fsck_is_clean(path: &Path) {
    let output = Command::new("/sbin/e2fsck").arg("-fn").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn disks_are_sound_sparse_and_made_once() {
    let rig = rig();
    let (one, two) = (VmId([1; 16]), VmId([2; 16]));
    rig.disks.ensure_vm_disks(OP, one, &plan(one)).await.unwrap();
    let start = Instant::now();
    rig.disks.ensure_vm_disks(OP, two, &plan(two)).await.unwrap();
    // Milliseconds; the bound only catches a copy that is not sparse.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    for vm in [one, two] {
        let (paths, plan) = (rig.disks.paths(vm), plan(vm));
        for (path, uuid, size) in [
            (paths.overlay(), plan.overlay_uuid, plan.overlay),
            (paths.work(), plan.work_uuid, plan.work),
        ] {
            e2fsck_is_clean(&path);
            let file = File::open(&path).unwrap();
            assert_eq!(Superblock::read(&file).unwrap().uuid(), uuid);
            let meta = file.metadata().unwrap();
            assert_eq!(meta.len(), size.bytes());
            assert!(meta.blocks() * 512 < 8 << 20, "{} blocks", meta.blocks());
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
            assert_eq!(meta.nlink(), 1);
        }
    }
    // A disk that is there is left alone.
    let overlay = rig.disks.paths(one).overlay();
    let before = fs::metadata(&overlay).unwrap();
    rig.disks.ensure_vm_disks(OP, one, &plan(one)).await.unwrap();
    let after = fs::metadata(&overlay).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(rig.disks.list().await.unwrap(), [one, two]);
    rig.disks.remove_vm(OP, one).await.unwrap();
    rig.disks.remove_vm(OP, one).await.unwrap();
    assert_eq!(rig.disks.list().await.unwrap(), [two]);
}

#[tokio::test]
async fn many_at_once_share_templates() {
    let rig = rig();
    let all = (0..20_u8).map(|n| {
        let disks = rig.disks.clone();
        async move {
            let vm = VmId([n / 2; 16]);
            disks.ensure_vm_disks(OP, vm, &plan(vm)).await
        }
    });
    futures::future::try_join_all(all).await.unwrap();
    assert_eq!(rig.disks.list().await.unwrap().len(), 10);
    let templates = fs::read_dir(rig.dir.path().join("state/templates")).unwrap().count();
    assert_eq!(templates, 2);
    let vm = rig.disks.paths(VmId([0; 16])).dir;
    assert_eq!(fs::read_dir(vm).unwrap().count(), 2, "nothing temporary is left");
}

#[tokio::test]
async fn a_damaged_disk_is_named_and_kept() {
    let rig = rig();
    let vm = VmId([1; 16]);
    rig.disks.ensure_vm_disks(OP, vm, &plan(vm)).await.unwrap();
    let overlay = rig.disks.paths(vm).overlay();
    File::options().write(true).open(&overlay).unwrap().set_len(1 << 20).unwrap();
    let error = rig.disks.ensure_vm_disks(OP, vm, &plan(vm)).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.object.contains("overlay.ext4"));
    fs::write(&overlay, "").unwrap();
    let error = rig.disks.ensure_vm_disks(OP, vm, &plan(vm)).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(overlay.exists());
}

#[tokio::test]
async fn a_link_in_place_of_a_vm_is_refused_and_not_followed() {
    let rig = rig();
    let vm = VmId([1; 16]);
    let elsewhere = rig.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, rig.disks.paths(vm).dir).unwrap();
    for result in [
        rig.disks.ensure_vm_disks(OP, vm, &plan(vm)).await,
        rig.disks.write_config(OP, vm, vec![1]).await,
        rig.disks.remove_vm(OP, vm).await,
    ] {
        assert_eq!(result.unwrap_err().code, Code::Refused);
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[tokio::test]
async fn leftovers_of_a_crash_go() {
    let rig = rig();
    let vm = VmId([1; 16]);
    let dir = rig.disks.paths(vm).dir;
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(".tmp-1-0-overlay.ext4"), "half").unwrap();
    rig.disks.ensure_vm_disks(OP, vm, &plan(vm)).await.unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
}

#[tokio::test]
async fn configuration_is_private_and_replaced() {
    let rig = rig();
    let vm = VmId([1; 16]);
    rig.disks.write_config(OP, vm, b"one".to_vec()).await.unwrap();
    rig.disks.write_config(OP, vm, b"two".to_vec()).await.unwrap();
    let config = rig.disks.paths(vm).config();
    assert_eq!(fs::read(&config).unwrap(), b"two");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    rig.disks.remove_config(OP, vm).await.unwrap();
    rig.disks.remove_config(OP, vm).await.unwrap();
    assert_eq!(fs::read_dir(rig.disks.paths(vm).dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_run_directory_starts_empty() {
    let rig = rig();
    let vm = VmId([1; 16]);
    rig.disks.ensure_run_dir(OP, vm).await.unwrap();
    let run = rig.disks.paths(vm).run;
    assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    fs::write(run.join("api.sock"), "").unwrap();
    rig.disks.ensure_run_dir(OP, vm).await.unwrap();
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    rig.disks.remove_run_dir(OP, vm).await.unwrap();
    rig.disks.remove_run_dir(OP, vm).await.unwrap();
    assert!(!run.exists());
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_refused_and_free_space_is_known() {
    let rig = rig();
    let vm = VmId([1; 16]);
    let tiny = DiskPlan::for_vm(vm, Size::from_mib(1), Size::from_mib(64));
    let error = rig.disks.ensure_vm_disks(OP, vm, &tiny).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(rig.disks.free().await.unwrap() > Size::from_mib(1));
}
