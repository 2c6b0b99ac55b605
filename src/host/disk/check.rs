//! Disks that a guest did not leave clean are checked before the next one gets them. Whether one
//! must be is read here, from its superblock; the checking is the helper's work.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::logs;
use super::superblock::{Superblock, SuperblockError};
use crate::host::files::{blocking, gone};
use crate::host::helper_client::HelperClient;
use crate::model::{Code, OpId, VmId};
use crate::ports::{CheckedDisk, HostError, VmPaths};
use crate::wire::helper::{HelperBody, HelperOk};

const DAMAGED_HEAD: &str = "its superblock is damaged";
/// Of what was said, what goes into an error.
const LINES: usize = 12;

/// e2fsck(8): 1 and 2 are what it put right, 4 is what it left, the rest is that it could not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Sound,
    Corrected,
    Damaged,
    Unchecked,
}

fn verdict(status: i32) -> Verdict {
    match status {
        0 => Verdict::Sound,
        1..=3 => Verdict::Corrected,
        4..=7 => Verdict::Damaged,
        _ => Verdict::Unchecked,
    }
}

/// Why this disk must be checked, if it must.
fn unclean(disk: &Path) -> Result<Option<&'static str>, HostError> {
    let failed = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let failed = HostError::io("look at disk", named(disk), error);
        match missing {
            true => failed.hint("restore the file from a backup, or delete the VM"),
            false => failed,
        }
    };
    let kind = fs::symlink_metadata(disk).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(HostError::new(Code::Corrupt, "use disk", named(disk))
            .because("it is neither a file nor a device"));
    }
    match Superblock::read(&File::open(disk).map_err(failed)?) {
        Ok(superblock) => Ok(superblock.unclean()),
        Err(SuperblockError::Read(error)) => Err(failed(error)),
        Err(_) => Ok(Some(DAMAGED_HEAD)),
    }
}

/// Those of the disks that were not left clean, or all of them with `repair`.
pub(super) async fn all(
    helper: Option<&HelperClient>,
    op: OpId,
    vm: VmId,
    paths: VmPaths,
    disks: [PathBuf; 2],
    repair: bool,
) -> Result<Vec<CheckedDisk>, HostError> {
    let mut checked = vec![];
    for disk in disks {
        let look = disk.clone();
        let found = blocking("look at disk", move || unclean(&look)).await?;
        let asked = repair.then_some("a repair was asked for");
        if let Some(why) = found.or(asked) {
            checked.push(check(helper, op, vm, (&paths, &disk), why, repair).await?);
        }
    }
    Ok(checked)
}

async fn check(
    helper: Option<&HelperClient>,
    op: OpId,
    vm: VmId,
    (paths, disk): (&VmPaths, &Path),
    why: &'static str,
    repair: bool,
) -> Result<CheckedDisk, HostError> {
    let failed = |code| HostError::new(code, "check disk", named(disk));
    let Some(helper) = helper else {
        return Err(failed(Code::HelperUnreachable).because("there is no helper to ask"));
    };
    let log = paths.check_log();
    let remove = log.clone();
    blocking("remove log", move || {
        gone(fs::remove_file(&remove))
            .map_err(|error| HostError::io("remove", named(&remove), error))
    })
    .await?;
    let body = HelperBody::CheckDisk { vm: vm.0, path: named(disk), repair, log: named(&log) };
    let status = match helper.call(op, body).await? {
        HelperOk::Checked { status } => status,
        other => {
            return Err(failed(Code::Protocol).because(format!("unexpected answer {other:?}")));
        }
    };
    let verdict = verdict(status);
    let said = blocking("read log", move || {
        let said = logs::tail(&log, LINES).unwrap_or_default();
        // Of a disk that is sound nobody reads on.
        if matches!(verdict, Verdict::Sound | Verdict::Corrected) {
            drop(fs::remove_file(&log));
        }
        Ok(said)
    });
    let said = words(said.await?);
    tracing::info!(op_id = %op, vm_id = %vm, disk = %disk.display(), why, status, "disk checked");
    let path = disk.to_owned();
    match verdict {
        Verdict::Sound => Ok(CheckedDisk { path, why, corrected: None }),
        Verdict::Corrected => Ok(CheckedDisk { path, why, corrected: Some(said) }),
        Verdict::Damaged => Err(failed(Code::Corrupt)
            .because(format!("{why}, and e2fsck does not put right by itself what it found"))
            .with_detail(said)),
        // A superblock that it cannot make sense of is damage like any other.
        Verdict::Unchecked if why == DAMAGED_HEAD => {
            Err(failed(Code::Corrupt).because(why).with_detail(said))
        }
        Verdict::Unchecked => Err(failed(Code::Host)
            .because(format!("{why}, and e2fsck could not check it (status {status})"))
            .with_detail(said)),
    }
}

/// Without the name that the helper has for the disk, and without e2fsck's own.
fn words(said: Vec<String>) -> Vec<String> {
    let counts = |line: &str| line.contains(" files (") && line.ends_with(" blocks");
    let said = said.into_iter().filter(|line| !line.starts_with("e2fsck 1.") && !counts(line));
    let said =
        said.map(|line| line.replace("/proc/self/fd/0: ", "").replace("/proc/self/fd/0", "it"));
    said.filter(|line| !line.trim().is_empty()).collect()
}

fn named(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "disks are made dirty by e2fsprogs")]
    fn run(program: &str, args: &[&str], disk: &Path) {
        let output = Command::new(program)
            .env("PATH", crate::host::files::SYSTEM_PATH)
            .args(args)
            .arg(disk)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn only_what_was_left_clean_needs_no_check() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let fresh = || {
            File::create(&disk).unwrap().set_len(16 << 20).unwrap();
            run("mke2fs", &["-q", "-F", "-t", "ext4"], &disk);
        };
        for (request, why) in [
            ("ssv mtime now", None),
            ("feature needs_recovery", Some("its journal was not replayed")),
            ("ssv state 0", Some("it was not unmounted")),
            ("ssv state 3", Some("errors were found in it")),
        ] {
            fresh();
            run("debugfs", &["-w", "-R", request], &disk);
            assert_eq!(unclean(&disk).unwrap(), why, "{request}");
        }
        File::create(&disk).unwrap().set_len(16 << 20).unwrap();
        assert_eq!(unclean(&disk).unwrap(), Some(DAMAGED_HEAD));
    }

    #[test]
    fn a_disk_that_is_not_there_has_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = unclean(&dir.path().join("none")).unwrap_err();
        assert_eq!((error.code, error.hints.len()), (Code::NotFound, 1));
        assert_eq!(unclean(dir.path()).unwrap_err().code, Code::Corrupt);
    }

    #[test]
    fn every_status_has_its_verdict() {
        let verdicts = [0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 128].map(verdict);
        use Verdict::{Corrected as C, Damaged as D, Sound as S, Unchecked as U};
        assert_eq!(verdicts, [S, C, C, C, D, D, D, U, U, U, U, U]);
    }

    #[test]
    fn what_is_told_is_what_was_said_of_the_disk() {
        let said = [
            "e2fsck 1.47.0 (5-Feb-2023)",
            "",
            "/proc/self/fd/0: recovering journal",
            "/proc/self/fd/0 was not cleanly unmounted, check forced.",
            "/proc/self/fd/0: 11/4096 files (9.1% non-contiguous), 1291/4096 blocks",
        ];
        let told = ["recovering journal", "it was not cleanly unmounted, check forced."];
        assert_eq!(words(said.map(str::to_owned).to_vec()), told);
    }
}
