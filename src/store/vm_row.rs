//! How VM records and handles are stored.
//!
//! Frozen: a change is a new variant at the end of [`StoredVm`] or [`StoredHandles`], never an
//! edited struct. These shapes are apart from the model for that reason.

use std::net::Ipv4Addr;

use super::table::{BadValue, Row};
use super::upkeep_row::UpkeepV1;
use crate::model::{
    Code, Digest, DiskBackend, ExitReport, Failure, Name, OpId, ProcessIdentity, RestartPolicy,
    RootDisk, Size, TapName, VmHandles, VmId, VmKeys, VmRecord, VmSpec, VmState, VmmChoice,
};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredVm {
    /// Of VMs whose root is an overlay, which was all there was.
    V1(Box<VmV1>),
    /// Of VMs that nobody restarted.
    V2(Box<VmV2>),
    V3(Box<VmV3>),
}

#[derive(Encode, Decode)]
pub(super) struct VmV3 {
    vm: VmV2,
    upkeep: UpkeepV1,
}

#[derive(Encode, Decode)]
pub(super) struct VmV2 {
    vm: VmV1,
    root: RootDiskV1,
    console: bool,
    warm: bool,
}

#[derive(Encode, Decode)]
struct RootDiskV1 {
    backend: DiskBackendV1,
    why: String,
}

#[derive(Clone, Copy, Encode, Decode)]
enum DiskBackendV1 {
    Reflink,
    DmSnapshot,
    Overlay,
}

#[derive(Encode, Decode)]
pub(super) struct VmV1 {
    id: [u8; 16],
    spec: SpecV1,
    state: StateV1,
    address: [u8; 4],
    image: [u8; 32],
    kernel: [u8; 32],
    keys: KeysV1,
    created_unix_ms: u64,
    last_failure: Option<FailureV1>,
    last_exit: Option<ExitV1>,
}

#[derive(Encode, Decode)]
struct SpecV1 {
    name: String,
    image: String,
    kernel: String,
    vcpu: u32,
    memory_mib: u32,
    disk_bytes: u64,
    work_disk_bytes: u64,
    nat: bool,
    env: Vec<(String, String)>,
    vmm: VmmV1,
}

#[derive(Clone, Copy, Encode, Decode)]
enum VmmV1 {
    Auto,
    Qemu,
    Firecracker,
}

#[derive(Clone, Copy, Encode, Decode)]
pub(super) enum StateV1 {
    Created,
    Starting,
    Running,
    Stopping,
    Stopped,
    Crashed,
    Error,
    Suspending,
    Suspended,
}

#[derive(Encode, Decode)]
struct KeysV1 {
    host_private: String,
    host_public: String,
    client_private: String,
    client_public: String,
}

#[derive(Encode, Decode)]
struct FailureV1 {
    /// The kebab-case form, which is stable.
    code: String,
    message: String,
    hints: Vec<String>,
    retryable: bool,
    op_id: Option<[u8; 16]>,
    detail: Vec<String>,
}

#[derive(Encode, Decode)]
struct ExitV1 {
    unix_ms: u64,
    how: String,
}

#[derive(Encode, Decode)]
pub(super) enum StoredHandles {
    V1 {
        process: Option<ProcessV1>,
        tap: Option<String>,
        vmm: Option<String>,
        guest_boot_id: Option<String>,
    },
}

#[derive(Encode, Decode)]
pub(super) struct ProcessV1 {
    pid: u32,
    start_ticks: u64,
    host_boot_id: String,
}

impl Row for VmRecord {
    type Stored = StoredVm;
}

impl Row for VmHandles {
    type Stored = StoredHandles;
}

impl From<VmRecord> for StoredVm {
    fn from(record: VmRecord) -> Self {
        let (root, spec) = (record.spec.root.clone().into(), &record.spec);
        let (console, warm) = (spec.console, spec.warm);
        let upkeep = UpkeepV1::of(&record);
        let vm = VmV1 {
            id: record.id.0,
            spec: record.spec.into(),
            state: record.state.into(),
            address: record.address.octets(),
            image: record.image.0,
            kernel: record.kernel.0,
            keys: record.keys.into(),
            created_unix_ms: record.created_unix_ms,
            last_failure: record.last_failure.map(Into::into),
            last_exit: record.last_exit.map(|ExitReport { unix_ms, how }| ExitV1 { unix_ms, how }),
        };
        let vm = VmV2 { vm, root, console, warm };
        Self::V3(Box::new(VmV3 { vm, upkeep }))
    }
}

impl TryFrom<StoredVm> for VmRecord {
    type Error = BadValue;

    fn try_from(stored: StoredVm) -> Result<Self, BadValue> {
        let plain = |vm| VmV2 { vm, root: RootDisk::default().into(), console: false, warm: false };
        let (row, upkeep) = match stored {
            StoredVm::V1(vm) => (plain(*vm), None),
            StoredVm::V2(row) => (*row, None),
            StoredVm::V3(row) => (row.vm, Some(row.upkeep)),
        };
        let VmV2 { vm, root, console, warm } = row;
        let root = root.into();
        let state = VmState::from(vm.state);
        let upkeep = upkeep.unwrap_or_else(|| UpkeepV1::before(state));
        Ok(Self {
            id: VmId(vm.id),
            spec: VmSpec {
                root,
                console,
                warm,
                restart: upkeep.policy.into(),
                health: upkeep.health.map(Into::into),
                ..vm.spec.try_into()?
            },
            state,
            address: Ipv4Addr::from(vm.address),
            image: Digest(vm.image),
            kernel: Digest(vm.kernel),
            keys: vm.keys.into(),
            created_unix_ms: vm.created_unix_ms,
            last_failure: vm.last_failure.map(Failure::try_from).transpose()?,
            last_exit: vm.last_exit.map(|ExitV1 { unix_ms, how }| ExitReport { unix_ms, how }),
            wanted: upkeep.wanted.into(),
            restarts: upkeep.restarts.into(),
        })
    }
}

impl From<VmSpec> for SpecV1 {
    fn from(spec: VmSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            image: spec.image,
            kernel: spec.kernel,
            vcpu: spec.vcpu,
            memory_mib: spec.memory_mib,
            disk_bytes: spec.disk.bytes(),
            work_disk_bytes: spec.work_disk.bytes(),
            nat: spec.nat,
            env: spec.env,
            vmm: match spec.vmm {
                VmmChoice::Auto => VmmV1::Auto,
                VmmChoice::Qemu => VmmV1::Qemu,
                VmmChoice::Firecracker => VmmV1::Firecracker,
            },
        }
    }
}

impl TryFrom<SpecV1> for VmSpec {
    type Error = BadValue;

    fn try_from(spec: SpecV1) -> Result<Self, BadValue> {
        Ok(Self {
            name: Name::vm(&spec.name).map_err(BadValue::because)?,
            image: spec.image,
            kernel: spec.kernel,
            vcpu: spec.vcpu,
            memory_mib: spec.memory_mib,
            disk: Size::from_bytes(spec.disk_bytes),
            work_disk: Size::from_bytes(spec.work_disk_bytes),
            nat: spec.nat,
            env: spec.env,
            vmm: match spec.vmm {
                VmmV1::Auto => VmmChoice::Auto,
                VmmV1::Qemu => VmmChoice::Qemu,
                VmmV1::Firecracker => VmmChoice::Firecracker,
            },
            // These lie beside the specification.
            root: RootDisk::default(),
            console: false,
            warm: false,
            restart: RestartPolicy::No,
            health: None,
        })
    }
}

impl From<RootDisk> for RootDiskV1 {
    fn from(root: RootDisk) -> Self {
        let backend = match root.backend {
            DiskBackend::Reflink => DiskBackendV1::Reflink,
            DiskBackend::DmSnapshot => DiskBackendV1::DmSnapshot,
            DiskBackend::Overlay => DiskBackendV1::Overlay,
        };
        Self { backend, why: root.why }
    }
}

impl From<RootDiskV1> for RootDisk {
    fn from(stored: RootDiskV1) -> Self {
        let backend = match stored.backend {
            DiskBackendV1::Reflink => DiskBackend::Reflink,
            DiskBackendV1::DmSnapshot => DiskBackend::DmSnapshot,
            DiskBackendV1::Overlay => DiskBackend::Overlay,
        };
        Self { backend, why: stored.why }
    }
}

impl From<VmState> for StateV1 {
    fn from(state: VmState) -> Self {
        match state {
            VmState::Created => Self::Created,
            VmState::Starting => Self::Starting,
            VmState::Running => Self::Running,
            VmState::Stopping => Self::Stopping,
            VmState::Stopped => Self::Stopped,
            VmState::Crashed => Self::Crashed,
            VmState::Error => Self::Error,
            VmState::Suspending => Self::Suspending,
            VmState::Suspended => Self::Suspended,
        }
    }
}

impl From<StateV1> for VmState {
    fn from(stored: StateV1) -> Self {
        match stored {
            StateV1::Created => Self::Created,
            StateV1::Starting => Self::Starting,
            StateV1::Running => Self::Running,
            StateV1::Stopping => Self::Stopping,
            StateV1::Stopped => Self::Stopped,
            StateV1::Crashed => Self::Crashed,
            StateV1::Error => Self::Error,
            StateV1::Suspending => Self::Suspending,
            StateV1::Suspended => Self::Suspended,
        }
    }
}

impl From<VmKeys> for KeysV1 {
    fn from(keys: VmKeys) -> Self {
        let VmKeys { host_private, host_public, client_private, client_public } = keys;
        Self { host_private, host_public, client_private, client_public }
    }
}

impl From<KeysV1> for VmKeys {
    fn from(stored: KeysV1) -> Self {
        let KeysV1 { host_private, host_public, client_private, client_public } = stored;
        Self { host_private, host_public, client_private, client_public }
    }
}

impl From<Failure> for FailureV1 {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            hints: failure.hints,
            retryable: failure.retryable,
            op_id: failure.op_id.map(|op| op.0),
            detail: failure.detail,
        }
    }
}

impl TryFrom<FailureV1> for Failure {
    type Error = BadValue;

    fn try_from(stored: FailureV1) -> Result<Self, BadValue> {
        let code = Code::ALL.into_iter().find(|code| code.as_str() == stored.code);
        Ok(Self {
            code: code.ok_or_else(|| BadValue(format!("failure code {:?}", stored.code)))?,
            message: stored.message,
            hints: stored.hints,
            retryable: stored.retryable,
            op_id: stored.op_id.map(OpId),
            detail: stored.detail,
        })
    }
}

impl From<VmHandles> for StoredHandles {
    fn from(handles: VmHandles) -> Self {
        Self::V1 {
            process: handles.process.map(|process| ProcessV1 {
                pid: process.pid,
                start_ticks: process.start_ticks,
                host_boot_id: process.host_boot_id,
            }),
            tap: handles.tap.map(|tap| tap.0),
            vmm: handles.vmm,
            guest_boot_id: handles.guest_boot_id,
        }
    }
}

impl TryFrom<StoredHandles> for VmHandles {
    type Error = BadValue;

    fn try_from(stored: StoredHandles) -> Result<Self, BadValue> {
        let StoredHandles::V1 { process, tap, vmm, guest_boot_id } = stored;
        Ok(Self {
            process: process.map(|process| ProcessIdentity {
                pid: process.pid,
                start_ticks: process.start_ticks,
                host_boot_id: process.host_boot_id,
            }),
            tap: tap.map(TapName),
            vmm,
            guest_boot_id,
        })
    }
}
