//! What is said to Firecracker's API and heard from it, as far as it is used.
//!
//! Names and shapes are checked against `tests/fixtures/firecracker-api.txt`. Firecracker refuses
//! fields that it does not know, so what an old version lacks must not be here unless it is left
//! out by default.

use serde::{Deserialize, Serialize};

/// `PUT /boot-source`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootSource {
    pub kernel_image_path: String,
    pub initrd_path: String,
    pub boot_args: String,
}

/// `PUT /machine-config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineConfig {
    pub vcpu_count: u32,
    pub mem_size_mib: u32,
}

/// `PUT /drives/{drive_id}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drive {
    pub drive_id: String,
    pub path_on_host: String,
    pub is_root_device: bool,
    pub is_read_only: bool,
    pub cache_type: CacheType,
    pub io_engine: IoEngine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum CacheType {
    /// The guest is not offered to flush, so what it syncs stays in the host's memory.
    Unsafe,
    /// The guest's flush is an fsync of the file.
    Writeback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum IoEngine {
    Sync,
    /// By io_uring; a preview still.
    Async,
}

/// `PUT /network-interfaces/{iface_id}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    pub iface_id: String,
    /// The tap, which must exist: Firecracker would make it as root, and does without.
    pub host_dev_name: String,
    pub guest_mac: String,
}

/// `PUT /vsock`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vsock {
    /// Three or more; each VMM has its own world of them.
    pub guest_cid: u32,
    pub uds_path: String,
}

/// `PUT /entropy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entropy {}

/// `PUT /actions`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    pub action_type: ActionType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ActionType {
    InstanceStart,
    FlushMetrics,
    /// On x86 alone.
    SendCtrlAltDel,
}

/// `PATCH /vm`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VmChange {
    pub state: VmChangeTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum VmChangeTo {
    Paused,
    Resumed,
}

/// `PUT /snapshot/create`, of a guest that is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotCreate {
    pub snapshot_type: SnapshotType,
    pub snapshot_path: String,
    pub mem_file_path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum SnapshotType {
    Full,
}

/// `PUT /snapshot/load`, to a process that was told nothing of a machine. Refused, it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotLoad {
    pub snapshot_path: String,
    pub mem_backend: MemoryBackend,
    pub resume_vm: bool,
    pub network_overrides: Vec<NetworkOverride>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryBackend {
    pub backend_type: BackendType,
    pub backend_path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum BackendType {
    /// Mapped: what the guest does not touch is not read, and the file must stay as it is.
    File,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkOverride {
    pub iface_id: String,
    pub host_dev_name: String,
}

/// The answer to `GET /`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    pub id: String,
    pub state: InstanceState,
    pub vmm_version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    #[serde(rename = "Not started")]
    NotStarted,
    Running,
    Paused,
}

/// The answer to whatever was refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    pub fault_message: String,
}

#[cfg(test)]
#[path = "types_tests.rs"]
pub(super) mod tests;
