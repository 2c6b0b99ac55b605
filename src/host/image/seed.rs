//! What new work disks of an image begin with, as large as they are to be.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::host::disk::copy_sparse;
use crate::host::files::SYSTEM_PATH;
use crate::model::{Code, Size};
use crate::ports::HostError;

pub(super) const BLOCK: u64 = 4096;

/// Makes `to`, which is new, of `seed`: a file system of so many bytes.
pub(super) fn grow(seed: &File, to: &Path, bytes: u64) -> Result<(), HostError> {
    let named = || to.display().to_string();
    let failed = |error| HostError::io("make work seed", named(), error);
    let least = seed.metadata().map_err(failed)?.len();
    if bytes < least {
        let least = Size::from_bytes(least.next_multiple_of(1 << 20));
        return Err(HostError::new(
            Code::Invalid,
            "make work disk of",
            Size::from_bytes(bytes).to_string(),
        )
        .because(format!("with what the image has in /root it takes {least}"))
        .hint(format!("`--work-disk-size {least}` or more")));
    }
    let file = copy_sparse(seed, to).map_err(failed)?;
    file.set_len(bytes).map_err(failed)?;
    // By force: the file system is new, and so was never checked.
    #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
    let output = Command::new("resize2fs")
        .env("PATH", SYSTEM_PATH)
        .arg("-f")
        .arg(to)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            HostError::io("run", "resize2fs", error).hint("install the package e2fsprogs")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let full = said.contains("No space left on device");
        let code = if full { Code::NoSpace } else { Code::Host };
        return Err(HostError::new(code, "make work seed", named()).because(said));
    }
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::super::LocalImages;
    use super::*;
    use crate::host::disk::{LocalDisks, Superblock};
    use crate::model::{OpId, VmId};
    use crate::ports::{DiskHost, DiskPlan, ImageHost, ImageRecipe, RootPlan};

    const OP: OpId = OpId([0; 16]);

    #[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
    fn ask(program: &str, args: &[&str], disk: &Path) -> String {
        let output = Command::new(program).args(args).arg(disk).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn import(images: &LocalImages, root: &Path) -> crate::model::Digest {
        let recipe = ImageRecipe::Directory { path: root.to_owned() };
        let cancel = CancellationToken::new();
        let made = images.make_image(OP, &recipe, Arc::new(|_| {}), &cancel).await;
        made.unwrap().digest
    }

    fn rig() -> (tempfile::TempDir, LocalImages) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/sh"), "#!program").unwrap();
        fs::set_permissions(root.join("bin/sh"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("agent"), "\x7fELF").unwrap();
        let images = LocalImages::new(&dir.path().join("state"), dir.path().join("agent"));
        (dir, images.unwrap())
    }

    #[tokio::test]
    async fn a_new_work_disk_has_what_the_image_has_and_costs_next_to_nothing() {
        let (dir, images) = rig();
        let home = dir.path().join("root/root");
        fs::create_dir_all(home.join("src")).unwrap();
        fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(home.join(".bashrc"), "PS1=").unwrap();
        fs::write(home.join("src/a"), vec![7; 10_000]).unwrap();
        let image = import(&images, &dir.path().join("root")).await;
        let size = Size::from_bytes(8 << 30);
        let seed = images.work_seed(OP, image, size).await.unwrap().unwrap();
        assert_eq!(images.work_seed(OP, image, size).await.unwrap(), Some(seed.clone()));
        let disks = LocalDisks::new(&dir.path().join("state"), &dir.path().join("run")).unwrap();
        let base = images.base(OP, image).await.unwrap();
        let (vm, small) = (VmId([1; 16]), Size::from_mib(64));
        let root = RootPlan::Overlay { size: small, uuid: [2; 16] };
        let plan = DiskPlan { root, work: size, work_uuid: [3; 16] };
        disks.ensure_vm_disks(OP, vm, &plan, &base, Some(&seed)).await.unwrap();
        let work = disks.paths(vm).work();
        ask("/sbin/e2fsck", &["-fn"], &work);
        let meta = fs::metadata(&work).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o777), (size.bytes(), 0o600));
        assert!(meta.blocks() * 512 < 1 << 20, "{} KiB", meta.blocks() / 2);
        let superblock = Superblock::read(&File::open(&work).unwrap()).unwrap();
        assert_eq!((superblock.bytes(), superblock.unclean()), (size.bytes(), None));
        let made = disks.as_made(vm, &plan).await.unwrap();
        assert!(made.work_uuid == superblock.uuid() && made.work_uuid != base.uuid);
        let debugfs = |request: &str| ask("/sbin/debugfs", &["-R", request], &work);
        assert_eq!(debugfs("cat .bashrc"), "PS1=");
        assert_eq!(debugfs("cat src/a").len(), 10_000);
        assert!(debugfs("stat /").contains("Mode:  0700"));
        // Seeds go with their image.
        images.sweep(OP, &[]).await.unwrap();
        assert_eq!(fs::read_dir(dir.path().join("state/images")).unwrap().count(), 0);
        assert_eq!(images.work_seed(OP, image, size).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_with_the_figure_and_nothing_needs_no_seed() {
        let (dir, images) = rig();
        let empty = import(&images, &dir.path().join("root")).await;
        assert_eq!(images.work_seed(OP, empty, Size::from_mib(64)).await.unwrap(), None);
        fs::create_dir(dir.path().join("root/root")).unwrap();
        fs::write(dir.path().join("root/root/a"), vec![7; 40 << 20]).unwrap();
        let large = import(&images, &dir.path().join("root")).await;
        let error = images.work_seed(OP, large, Size::from_mib(32)).await.unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        assert!(error.hints[0].contains("--work-disk-size"), "{error:?}");
        let work = dir.path().join("state/tmp");
        assert_eq!(fs::read_dir(work).unwrap().count(), 0);
        assert!(images.work_seed(OP, large, Size::from_mib(128)).await.unwrap().is_some());
    }
}
