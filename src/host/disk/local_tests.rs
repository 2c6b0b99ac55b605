//! The port as a whole, with real file systems as e2fsck sees them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::model::DiskBackend;

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

fn tagged(vm: VmId, tag: u8) -> [u8; 16] {
    let mut uuid = vm.0;
    uuid[15] ^= tag;
    uuid
}

/// Of VMs whose root is an overlay nothing is asked of it.
fn base() -> BaseImage {
    BaseImage { path: "/none".into(), uuid: [5; 16], size: Size::from_mib(64), growable: true }
}

fn plan(vm: VmId) -> DiskPlan {
    let root = RootPlan::Overlay { size: Size::from_mib(8192), uuid: tagged(vm, 1) };
    DiskPlan { root, work: Size::from_mib(64), work_uuid: tagged(vm, 2) }
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
    rig.disks.ensure_vm_disks(OP, one, &plan(one), &base(), None).await.unwrap();
    let start = Instant::now();
    rig.disks.ensure_vm_disks(OP, two, &plan(two), &base(), None).await.unwrap();
    // Milliseconds; the bound only catches a copy that is not sparse.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    for vm in [one, two] {
        let (paths, plan) = (rig.disks.paths(vm), plan(vm));
        for (path, uuid, size) in [
            (paths.overlay(), tagged(vm, 1), Size::from_mib(8192)),
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
        assert_eq!(rig.disks.as_made(vm, &plan).await.unwrap(), plan);
    }
    // A disk that is there is left alone.
    let overlay = rig.disks.paths(one).overlay();
    let before = fs::metadata(&overlay).unwrap();
    rig.disks.ensure_vm_disks(OP, one, &plan(one), &base(), None).await.unwrap();
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
            disks.ensure_vm_disks(OP, vm, &plan(vm), &base(), None).await
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
async fn copies_are_whole_and_keep_their_uuids() {
    let rig = rig();
    let (one, two) = (VmId([1; 16]), VmId([2; 16]));
    rig.disks.ensure_vm_disks(OP, one, &plan(one), &base(), None).await.unwrap();
    let dir = rig.dir.path().join("kept");
    fs::create_dir(&dir).unwrap();
    rig.disks.copy_disks(OP, one, &plan(one), &dir).await.unwrap();
    rig.disks.remove_vm(OP, one).await.unwrap();
    for _ in 0..2 {
        rig.disks.ensure_copied_disks(OP, two, &plan(two), &dir).await.unwrap();
    }
    assert_eq!(rig.disks.as_made(two, &plan(two)).await.unwrap(), plan(one));
    e2fsck_is_clean(&rig.disks.paths(two).overlay());
    // They are there, and stay as they are.
    rig.disks.ensure_vm_disks(OP, two, &plan(two), &base(), None).await.unwrap();
    assert_eq!(rig.disks.as_made(two, &plan(two)).await.unwrap(), plan(one));
    let entries = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!((entries(&dir), entries(&rig.disks.paths(two).dir)), (2, 2));
}

#[tokio::test]
async fn a_damaged_disk_is_named_and_kept() {
    let rig = rig();
    let vm = VmId([1; 16]);
    rig.disks.ensure_vm_disks(OP, vm, &plan(vm), &base(), None).await.unwrap();
    let overlay = rig.disks.paths(vm).overlay();
    File::options().write(true).open(&overlay).unwrap().set_len(1 << 20).unwrap();
    let error = rig.disks.ensure_vm_disks(OP, vm, &plan(vm), &base(), None).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.object.contains("overlay.ext4"));
    assert_eq!(rig.disks.as_made(vm, &plan(vm)).await.unwrap_err().code, Code::Corrupt);
    fs::write(&overlay, "").unwrap();
    let error = rig.disks.ensure_vm_disks(OP, vm, &plan(vm), &base(), None).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(overlay.exists());
    fs::remove_file(&overlay).unwrap();
    assert_eq!(rig.disks.as_made(vm, &plan(vm)).await.unwrap_err().code, Code::NotFound);
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
        rig.disks.ensure_vm_disks(OP, vm, &plan(vm), &base(), None).await,
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
    rig.disks.ensure_vm_disks(OP, vm, &plan(vm), &base(), None).await.unwrap();
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
    let left: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [rig.disks.paths(vm).sockets()]);
    rig.disks.remove_run_dir(OP, vm).await.unwrap();
    rig.disks.remove_run_dir(OP, vm).await.unwrap();
    assert!(!run.exists());
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_refused_and_free_space_is_known() {
    let rig = rig();
    let vm = VmId([1; 16]);
    let root = RootPlan::Overlay { size: Size::from_mib(1), uuid: tagged(vm, 1) };
    let tiny = DiskPlan { root, ..plan(vm) };
    let error = rig.disks.ensure_vm_disks(OP, vm, &tiny, &base(), None).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(rig.disks.free().await.unwrap() > Size::from_mib(1));
}

/// A file system that can share blocks, as long as the value lives. `None`, with a line that says
/// so: none can be mounted here.
struct Xfs(tempfile::TempDir);

impl Xfs {
    #[allow(clippy::print_stderr, reason = "skipped tests say so")]
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let script = "truncate -s 3G $1/xfs && mkfs.xfs -q -m reflink=1 $1/xfs && mkdir $1/at \
                      && mount -o loop $1/xfs $1/at";
        let made = sh(script, dir.path());
        if !made.status.success() {
            eprintln!("skipped: no xfs: {}", String::from_utf8_lossy(&made.stderr));
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("at")
    }

    /// Bytes in use, as the file system counts them.
    fn used(&self) -> u64 {
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        sh("umount $1/at", self.0.path());
    }
}

#[allow(clippy::disallowed_methods, reason = "tests use the host's programs")]
fn sh(script: &str, dir: &Path) -> std::process::Output {
    let path = crate::host::files::SYSTEM_PATH;
    Command::new("sh").env("PATH", path).args(["-c", script, "sh"]).arg(dir).output().unwrap()
}

#[tokio::test]
async fn a_clone_of_a_large_image_costs_nothing() {
    let Some(xfs) = Xfs::mount() else { return };
    let disks = LocalDisks::new(&xfs.path().join("state"), &xfs.path().join("run")).unwrap();
    let image = xfs.path().join("image.ext4");
    let made = sh(
        "mkdir $1/d && head -c 300M /dev/zero | tr '\\0' x > $1/d/fill \
         && mke2fs -q -F -t ext4 -O ^metadata_csum -d $1/d $1/image.ext4 2G",
        &xfs.path(),
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let uuid = Superblock::read(&File::open(&image).unwrap()).unwrap().uuid();
    let size = Size::from_mib(2048);
    let base = BaseImage { path: image, uuid, size, growable: true };
    let auto = disks.choose(OP, DiskChoice::Auto, &base).await.unwrap();
    assert_eq!(auto.backend, DiskBackend::Reflink);
    let plan = |vm| DiskPlan {
        root: RootPlan::Reflink { room: Size::from_mib(8192) },
        work: Size::from_mib(8192),
        work_uuid: tagged(vm, 2),
    };
    // The first one has the template of its work disk to make.
    disks.ensure_vm_disks(OP, VmId([1; 16]), &plan(VmId([1; 16])), &base, None).await.unwrap();
    let before = xfs.used();
    let vm = VmId([2; 16]);
    disks.ensure_vm_disks(OP, vm, &plan(vm), &base, None).await.unwrap();
    disks.write_config(OP, vm, vec![1; 64 << 10]).await.unwrap();
    let took = xfs.used() - before;
    assert!(took < 1 << 20, "{took} bytes");
    let root = disks.paths(vm).root();
    assert_eq!(fs::metadata(&root).unwrap().len(), 10 << 30);
    let inode = fs::metadata(&root).unwrap().ino();
    disks.ensure_vm_disks(OP, vm, &plan(vm), &base, None).await.unwrap();
    assert_eq!(fs::metadata(&root).unwrap().ino(), inode, "what is there is left alone");
    e2fsck_is_clean(&root);
    // One that was made before images had journals is not written to.
    let old = BaseImage { growable: false, ..base };
    let chosen = disks.choose(OP, DiskChoice::Auto, &old).await.unwrap();
    assert_eq!(chosen.backend, DiskBackend::Overlay);
    let only = DiskChoice::Only(DiskBackend::Reflink);
    assert_eq!(disks.choose(OP, only, &old).await.unwrap_err().code, Code::Refused);
    assert_eq!(fs::read_dir(xfs.path().join("state/vms")).unwrap().count(), 2, "no probe is left");
}

#[tokio::test]
async fn where_blocks_cannot_be_shared_that_is_said() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let disks = LocalDisks::new(&dir.path().join("state"), &dir.path().join("run")).unwrap();
    let auto = disks.choose(OP, DiskChoice::Auto, &base()).await.unwrap();
    assert_eq!(auto.backend, DiskBackend::Overlay);
    assert!(auto.why.contains("cannot share blocks"), "{auto:?}");
    let only = DiskChoice::Only(DiskBackend::Reflink);
    assert_eq!(disks.choose(OP, only, &base()).await.unwrap_err().code, Code::Refused);
}
