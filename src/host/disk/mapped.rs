//! Root disks that device-mapper makes of an image and a file of changes: see the helper's
//! `snapshot`. Here is the file; the device is the helper's work, and lives as long as a run.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::template::Draft;
use crate::host::files::TempFile;
use crate::host::helper_client::HelperClient;
use crate::model::{Code, OpId, Size, VmId};
use crate::ports::{HostError, VmPaths};
use crate::wire::helper::{HelperBody, HelperOk};

/// What the device copies at once, and how many of these one chunk of its tables describes.
const CHUNK: u64 = 4096;
const PER_TABLE: u64 = CHUNK / 16;

/// An empty file that becomes `target`: sparse, and large enough for a guest that changes every
/// byte of its disk. So the device can never overflow; how much of it a VM may use is watched.
pub(super) fn draft(target: &Path, disk_bytes: u64) -> Result<Draft, HostError> {
    let failed = |error| HostError::io("make disk", target.display().to_string(), error);
    let temp = TempFile::beside(target);
    let file =
        File::options().read(true).write(true).create_new(true).mode(0o600).open(temp.path());
    let file = file.map_err(failed)?;
    file.set_len(changes_bytes(disk_bytes)).map_err(failed)?;
    Ok(Draft::new(target, temp, file))
}

/// Makes the file as large as a disk of that size needs it to be.
pub(super) fn fit(path: &Path, disk_bytes: u64) -> Result<(), HostError> {
    let failed = |error: io::Error| HostError::io("grow disk", path.display().to_string(), error);
    let file = File::options().write(true).open(path).map_err(failed)?;
    let (len, needed) = (file.metadata().map_err(failed)?.len(), changes_bytes(disk_bytes));
    if len >= needed { Ok(()) } else { file.set_len(needed).map_err(failed) }
}

fn changes_bytes(disk_bytes: u64) -> u64 {
    let chunks = disk_bytes.div_ceil(CHUNK);
    (chunks + chunks.div_ceil(PER_TABLE) + 16) * CHUNK
}

/// Whether the helper can make such devices; if not, why.
pub(super) async fn available(
    helper: Option<&HelperClient>,
    op: OpId,
) -> Result<Result<(), String>, HostError> {
    let Some(helper) = helper else { return Ok(Err("there is no helper to ask".to_owned())) };
    match helper.call(op, HelperBody::ListSnapshots).await {
        Ok(_) => Ok(Ok(())),
        Err(error) if error.code == Code::NotFound => {
            Ok(Err("this host has no device-mapper with snapshots".to_owned()))
        }
        // A helper of before does not know the question.
        Err(error) if error.code == Code::Protocol => Ok(Err("the helper is too old".to_owned())),
        Err(error) => Err(error),
    }
}

pub(super) async fn open(
    helper: &HelperClient,
    op: OpId,
    paths: &VmPaths,
    vm: VmId,
    base: &Path,
    bytes: u64,
) -> Result<std::path::PathBuf, HostError> {
    let text = |path: &Path| path.display().to_string();
    let (base, changes) = (text(base), text(&paths.changes()));
    let body = HelperBody::EnsureSnapshot { vm: vm.0, base, changes, bytes };
    match helper.call(op, body).await? {
        HelperOk::Loop { device } => Ok(device.into()),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn close(helper: &HelperClient, op: OpId, vm: VmId) -> Result<(), HostError> {
    helper.call(op, HelperBody::RemoveSnapshot { vm: vm.0 }).await.map(drop)
}

/// Writes out what the host still holds of what the guest wrote. Best effort: a device that cannot be
/// opened is being looked after by whoever holds it.
pub(super) fn flush(vm: VmId) {
    let path = Path::new("/dev/banger").join(vm.to_string());
    if let Err(error) = File::open(&path).and_then(|device| device.sync_data()) {
        tracing::debug!(vm_id = %vm, %error, "root disk not flushed");
    }
}

/// VMs whose device is there. Where none can be made there are none.
pub(super) async fn list(helper: &HelperClient, op: OpId) -> Result<Vec<VmId>, HostError> {
    match helper.call(op, HelperBody::ListSnapshots).await {
        Ok(HelperOk::Snapshots(vms)) => Ok(vms.into_iter().map(VmId).collect()),
        Ok(other) => Err(unexpected(&other)),
        Err(error) if error.code == Code::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}

/// Without a helper there are none.
pub(super) async fn detach(
    helper: Option<&HelperClient>,
    op: OpId,
    file: &Path,
) -> Result<(), HostError> {
    let Some(helper) = helper else { return Ok(()) };
    let path = file.display().to_string();
    helper.call(op, HelperBody::DetachLoop { path }).await.map(drop)
}

fn unexpected(got: &HelperOk) -> HostError {
    HostError::new(Code::Protocol, "ask the helper for", "a root disk")
        .because(format!("unexpected answer {got:?}"))
}

/// How large a root disk is that has `room` beside its image.
pub(super) fn disk_bytes(base: Size, room: Size) -> u64 {
    super::reflink::root_bytes(base, room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_every_chunk_and_its_tables() {
        // 1 GiB: 262144 chunks, 1024 of tables, the head and some more.
        assert_eq!(changes_bytes(1 << 30), (262_144 + 1024 + 16) * 4096);
        assert!(changes_bytes(1) > 4096 * 2);
    }
}
