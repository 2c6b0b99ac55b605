//! A guest's memory to files and back, by Firecracker's snapshots: one of its memory, one of its
//! devices' state.

use std::fs::File;
use std::time::Duration;

use tokio::net::UnixStream;

use super::adapter::{open, state};
use super::client::{Call, failed};
use super::machine::{INTERFACE, SAVED, SAVING, in_root};
use super::types::{
    BackendType, InstanceInfo, InstanceState, MemoryBackend, NetworkOverride, SnapshotCreate,
    SnapshotLoad, SnapshotType, VmChange, VmChangeTo,
};
use crate::host::disk::punch_zeros;
use crate::host::files::blocking;
use crate::host::vmm::socket::connect_when_there;
use crate::model::{Code, OpId, SavedBy, VmmKind};
use crate::ports::{BootPlan, HostError, VmPaths};

/// Whoever asks has a limit of its own, and sees when the process ends.
const LIMIT: Duration = Duration::from_secs(3600);

pub(super) async fn save(op: OpId, paths: &VmPaths) -> Result<SavedBy, HostError> {
    let what = "save memory by";
    let socket = paths.firecracker_socket();
    let object = || format!("Firecracker at {}", socket.display());
    let stream = UnixStream::connect(&socket).await;
    let stream = stream.map_err(|error| HostError::io(what, object(), error))?;
    let mut api = open(stream, &socket).await?;
    let told = |error| failed(what, "Firecracker", &socket, error);
    let info: InstanceInfo = api.get("/").await.map_err(told)?;
    for call in [
        Call::patch("/vm", &VmChange { state: VmChangeTo::Paused }),
        Call::put("/snapshot/create", &create()),
    ] {
        let call =
            call.map_err(|error| HostError::new(Code::Internal, what, object()).because(error))?;
        api.call_within(LIMIT, &call).await.map_err(told)?;
    }
    let memory = paths.saving().memory;
    blocking("give back zeros of", move || {
        // It writes all of the memory, used or not.
        let file = File::options().read(true).write(true).open(&memory);
        file.and_then(|file| punch_zeros(&file)).map_err(|error| {
            HostError::io("give back zeros of", memory.display().to_string(), error)
        })
    })
    .await?;
    tracing::debug!(op_id = %op, socket = %socket.display(), "memory written");
    let (version, accelerator) = (info.vmm_version, "kvm".to_owned());
    Ok(SavedBy { kind: VmmKind::Firecracker, version, accelerator })
}

/// Ends when the guest stands where it stood. Asked again, it finds it so.
pub(super) async fn load(op: OpId, plan: &BootPlan) -> Result<(), HostError> {
    let what = "load memory by";
    let socket = plan.paths.firecracker_socket();
    let object = format!("Firecracker at {}", socket.display());
    let refused = |code| HostError::new(code, what, object.clone());
    let mut api = open(connect_when_there(&socket).await?, &socket).await?;
    if state(&mut api, &socket, plan.vm).await? == InstanceState::NotStarted {
        let call = Call::put("/snapshot/load", &request(plan));
        let call = call.map_err(|error| refused(Code::Internal).because(error))?;
        let loaded = api.call_within(LIMIT, &call).await;
        loaded.map_err(|error| failed(what, "Firecracker", &socket, error))?;
    }
    match state(&mut api, &socket, plan.vm).await? {
        InstanceState::Paused => {
            tracing::debug!(op_id = %op, socket = %socket.display(), "memory read");
            Ok(())
        }
        other => Err(refused(Code::Host).because(format!("the guest is {other:?}"))),
    }
}

fn create() -> SnapshotCreate {
    let [mem_file_path, snapshot_path] = SAVING.map(in_root);
    SnapshotCreate { snapshot_type: SnapshotType::Full, snapshot_path, mem_file_path }
}

/// Its disks and its vsock are where they were; the tap may be another one.
fn request(plan: &BootPlan) -> SnapshotLoad {
    let [backend_path, snapshot_path] = SAVED.map(in_root);
    SnapshotLoad {
        snapshot_path,
        mem_backend: MemoryBackend { backend_type: BackendType::File, backend_path },
        // Not before the saved memory is gone.
        resume_vm: false,
        network_overrides: vec![NetworkOverride {
            iface_id: INTERFACE.to_owned(),
            host_dev_name: plan.tap.to_string(),
        }],
    }
}
