//! What the daemon answers. Append only, as for requests.
//!
//! The field names of these types are also those of the CLI's `--json`, hence `Serialize`; they
//! are as stable as the bytes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::codec::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The intent is durable and the operation runs; a lost connection loses nothing from here on.
    Accepted { op_id: [u8; 16] },
    /// Progress of the operation asked for, or of everything when events were.
    Event(EventInfo),
    /// A piece of a log, as it is.
    Bytes(Vec<u8>),
    /// A piece of a long list; pieces come before `Done`, which then holds the last one.
    Part(Answer),
    /// The last reply to a request.
    Done(Answer),
    /// The last reply to a request.
    Failed(FailureInfo),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    Nothing,
    Status(Box<StatusInfo>),
    Checks(Vec<CheckInfo>),
    Vms(Vec<VmInfo>),
    Endpoint(Box<EndpointInfo>),
    Images(Vec<ImageInfo>),
    Kernels(Vec<KernelInfo>),
    Ops(Vec<OpInfo>),
    /// How an operation ended, with the VM as it is now, unless it is gone.
    Ended {
        op: Box<OpInfo>,
        vm: Option<Box<VmInfo>>,
    },
    Lane {
        socket: String,
    },
    Stats(Vec<StatsInfo>),
    Disk(Box<DiskInfo>),
    Upkeep(Vec<UpkeepInfo>),
    Ledger(Vec<LedgerInfo>),
    Garbage(Vec<GarbageInfo>),
    Diagnosis(Box<DiagnosisInfo>),
    Workspaces(Vec<WorkspaceInfo>),
    /// This and the next: none of an image that came as a root file system.
    Program(Option<Box<ProgramInfo>>),
    ImageConfig(Option<Box<ImageConfigInfo>>),
    ImageUsage(Vec<ImageUsageInfo>),
    KernelFeatures(Vec<KernelFeatureInfo>),
    Blobs(Vec<BlobInfo>),
    /// None where there is no kernel.
    DefaultKernel(Option<Box<DefaultKernelInfo>>),
    KernelUsage(Vec<KernelUsageInfo>),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct FailureInfo {
    pub code: String,
    pub message: String,
    pub hints: Vec<String>,
    pub retryable: bool,
    pub op_id: Option<String>,
    pub detail: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct StatusInfo {
    pub version: String,
    pub pid: u32,
    pub uid: u32,
    pub started_unix_ms: u64,
    pub state_dir: String,
    pub socket: String,
    pub simulated: bool,
    pub bridge: String,
    pub subnet: String,
    pub dns_listen: Option<String>,
    pub taps_ready: u32,
    pub taps_leased: u32,
    pub vms: u32,
    pub vms_running: u32,
    pub helper: String,
}

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct CheckInfo {
    pub name: String,
    /// `pass`, `warn` or `fail`.
    pub verdict: String,
    pub detail: String,
    pub hint: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct VmInfo {
    pub id: String,
    pub name: String,
    pub state: String,
    pub generation: u64,
    pub image: String,
    pub image_digest: String,
    pub kernel: String,
    pub kernel_digest: String,
    pub address: String,
    pub mac: String,
    pub vcpu: u32,
    pub memory_mib: u32,
    pub disk_bytes: u64,
    pub work_disk_bytes: u64,
    pub nat: bool,
    /// Names only: values may be secrets.
    pub env_names: Vec<String>,
    pub created_unix_ms: u64,
    pub busy: Option<BusyInfo>,
    /// Which VMM runs it, and why that one.
    pub vmm: Option<String>,
    pub pid: Option<u32>,
    pub tap: Option<String>,
    pub guest_boot_id: Option<String>,
    pub host_key: String,
    pub last_failure: Option<FailureInfo>,
    pub last_exit: Option<ExitInfo>,
}

/// What a VM takes of its host. Counters begin with its VMM's process; a rate is the difference of
/// two, over that of their times.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct StatsInfo {
    pub id: String,
    pub name: String,
    pub state: String,
    pub collected_unix_ms: u64,
    pub vcpu: u32,
    pub memory_mib: u32,
    /// Which process the counters are of: another one has begun again.
    pub pid: Option<u32>,
    pub cpu_us: Option<u64>,
    /// Of the guest's memory and the VMM's own, what is in RAM.
    pub resident_bytes: Option<u64>,
    /// As the VM's cgroup is charged, the host's cache of its disks included.
    pub cgroup_bytes: Option<u64>,
    /// On the host's disk; the disks are sparse.
    pub root_disk_bytes: u64,
    pub work_disk_bytes: u64,
    /// Where the VMM counts.
    pub devices: Option<DevicesInfo>,
}

/// In and out, read and written are the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct DevicesInfo {
    pub net_in_bytes: u64,
    pub net_out_bytes: u64,
    pub net_in_packets: u64,
    pub net_out_packets: u64,
    pub disk_read_bytes: u64,
    pub disk_written_bytes: u64,
    pub disk_reads: u64,
    pub disk_writes: u64,
    pub disk_flushes: u64,
    pub vsock_in_bytes: u64,
    pub vsock_out_bytes: u64,
}

/// A VM's root disk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct DiskInfo {
    pub backend: String,
    /// Why that one.
    pub why: String,
    /// What the guest's changes take and may take, where that is watched.
    pub used_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Why it is paused.
    pub paused: Option<String>,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct LedgerInfo {
    /// `tap`, `nat-rule`, `process`, `cgroup`, `jail`, `root-device`, `run-dir`, `vm-dir`,
    /// `config-drive`, `saved-memory`.
    pub kind: String,
    pub name: String,
    /// Whose it is; none of a tap that is free.
    pub vm_id: Option<String>,
    /// Whose step announced it; not kept of taps.
    pub op_id: Option<String>,
    pub since_unix_ms: Option<u64>,
}

/// A thing that ledger and host disagree on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct GarbageInfo {
    /// As in the ledger, and `loop`, `leftover`.
    pub kind: String,
    pub name: String,
    pub vm_id: Option<String>,
    pub vm: Option<String>,
    /// `orphan`: there, and in no row; `lost`: in a row, and not there, or of a VM that is gone.
    pub amiss: String,
    pub why: String,
    /// `remove`, `strike-row`, `write-row`, `mended`, `leave`.
    pub cure: String,
    /// The same in words.
    pub would: String,
    /// Whether a collection does it.
    pub acts: bool,
}

/// What is wrong with a VM, and what would be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct DiagnosisInfo {
    pub vm_id: String,
    pub name: String,
    pub state: String,
    pub found: Vec<String>,
    /// `none`, `clean-up`, `restart`, `continue`, `revive`, `elsewhere`.
    pub action: String,
    pub steps: Vec<String>,
    /// What is for its owner to do, instead or afterwards.
    pub exit: Option<String>,
    pub rows: Vec<LedgerInfo>,
}

/// The repository that was prepared in a VM.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct WorkspaceInfo {
    pub id: String,
    pub guest_path: String,
    pub host_path: String,
    pub head: String,
    pub branch: Option<String>,
    /// `shallow`, `full_copy`.
    pub mode: String,
    pub include_untracked: bool,
    pub exclude: Vec<String>,
    pub include_ignored: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    pub manifest: String,
    pub prepared_unix_ms: u64,
}

/// How a VM is kept running.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct UpkeepInfo {
    pub id: String,
    /// `no`, `on-failure`, `on-failure:3`, `always`.
    pub restart_policy: String,
    /// What its owner asked for last: `running` or `stopped`.
    pub wanted: String,
    /// By its policy, since its owner's last word or its last long run.
    pub restarts: u32,
    /// When its policy starts it again.
    pub next_start_unix_ms: Option<u64>,
    pub health: Option<HealthInfo>,
    /// What is wrong with it though it runs.
    pub conditions: Vec<ConditionInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HealthInfo {
    pub command: String,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    pub retries: u32,
    pub start_period_ms: u64,
    /// `starting`, `healthy`, `failing`, `unhealthy`; `off` of a VM that does not run.
    pub status: String,
    /// In a row.
    pub failures: u32,
    pub last: Option<HealthRunInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HealthRunInfo {
    pub unix_ms: u64,
    /// `exit status 1`, `killed by signal 9`, `no answer within 5s`.
    pub how: String,
    /// The end of what it printed.
    pub output: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ConditionInfo {
    /// `unhealthy`.
    pub kind: String,
    pub reason: String,
    pub since_unix_ms: u64,
    /// What ends it.
    pub exit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct BusyInfo {
    pub op_id: String,
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ExitInfo {
    pub unix_ms: u64,
    pub how: String,
}

/// Everything the CLI needs to speak SSH to the guest by itself.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct EndpointInfo {
    pub vm_id: String,
    pub name: String,
    /// Of the guest, or the path of the VMM's socket for its vsock ports.
    pub address: String,
    pub port: u16,
    pub host_key: String,
    pub client_private: String,
    pub env: Vec<(String, String)>,
}

impl std::fmt::Debug for EndpointInfo {
    /// The key must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointInfo").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ImageInfo {
    pub name: String,
    pub digest: String,
    pub size_bytes: u64,
    pub source: String,
    pub created_unix_ms: u64,
    pub used_by: Vec<String>,
}

/// How an image is run; what is empty it does not say.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ImageConfigInfo {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// What the contents of an image take of the host's disk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ImageUsageInfo {
    pub digest: String,
    pub names: Vec<ImageNameInfo>,
    pub used_by: Vec<String>,
    pub file_bytes: u64,
    /// What new work disks begin with.
    pub seed_bytes: u64,
    /// Memories of guests that VMs of it start from.
    pub snapshots: u32,
    pub snapshot_bytes: u64,
}

/// Of the cache of what came from registries.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct BlobInfo {
    pub digest: String,
    pub bytes: u64,
    /// Else a pull goes on with it.
    pub whole: bool,
    pub used_unix_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ImageNameInfo {
    pub name: String,
    /// Why a prune leaves it; what it removes has no reason.
    pub kept_because: Option<String>,
}

/// How commands run in a VM if nobody says otherwise; what is empty the image does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ProgramInfo {
    /// Both empty of an image whose program is an init.
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub user: String,
    pub workdir: String,
    pub stop_signal: String,
    /// It runs from every start on.
    pub runs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct KernelInfo {
    pub name: String,
    pub digest: String,
    pub version: String,
    pub distro: String,
    pub arch: String,
    pub modules: u32,
    pub size_bytes: u64,
    pub source: String,
    pub created_unix_ms: u64,
    pub used_by: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct DefaultKernelInfo {
    pub name: String,
    /// `configuration`, `set`, `newest`.
    pub decided_by: String,
    /// Whether there is a kernel of this name.
    pub exists: bool,
}

/// What the contents of a kernel take of the host's disk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct KernelUsageInfo {
    pub digest: String,
    pub names: Vec<ImageNameInfo>,
    pub used_by: Vec<String>,
    pub file_bytes: u64,
    /// What guests boot with it.
    pub initrd_bytes: u64,
}

/// An option of a kernel's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct KernelFeatureInfo {
    pub option: String,
    /// What guests have of it: `yes`, `module`, `module-left-out`, `no`, `unknown`.
    pub support: String,
    pub purpose: String,
    /// VMs that do not boot without it.
    pub needed_by: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct OpInfo {
    pub id: String,
    pub kind: String,
    pub subject: String,
    pub vm_id: Option<String>,
    pub started_unix_ms: u64,
    pub ended_unix_ms: Option<u64>,
    /// `running`, `done`, `unchanged`, `rolled-back`, `stuck`.
    pub outcome: String,
    pub step: Option<String>,
    pub cause: Option<String>,
    pub undo: Option<String>,
    /// The ladder; only where one operation was asked for.
    pub steps: Vec<StepInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct StepInfo {
    pub step: String,
    /// `not-started`, `running`, `done`, `failed`, `undoing`, `undone`, `undo-failed`.
    pub status: String,
    pub started_unix_ms: Option<u64>,
    pub ended_unix_ms: Option<u64>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct EventInfo {
    pub seq: u64,
    pub unix_ms: u64,
    pub op_id: Option<String>,
    pub vm_id: Option<String>,
    pub kind: EventKindInfo,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKindInfo {
    OpStarted {
        op: String,
        subject: String,
    },
    StepStarted {
        step: String,
    },
    StepDone {
        step: String,
        elapsed_us: u64,
    },
    StepFailed {
        step: String,
        cause: String,
    },
    StepUndone {
        step: String,
    },
    OpEnded {
        outcome: String,
    },
    VmChanged {
        name: String,
        state: String,
    },
    VmExited {
        name: String,
        how: String,
        expected: bool,
    },
    ActorRebuilt {
        actor: String,
        incarnation: u64,
    },
    ActorQuarantined {
        actor: String,
    },
    Progress {
        text: String,
    },
    /// The reader was too slow; so many events are lost to it.
    Missed {
        count: u64,
    },
    /// Worth a line of its own also where progress comes and goes.
    Note {
        text: String,
    },
    /// So many events came faster than they could be written, and are not told.
    Lost {
        count: u64,
    },
    /// Not an event: what was asked for, or not read in time, is not kept any more; this number is
    /// the first that follows.
    Forgotten {
        first: u64,
    },
    /// How far a blob of a pull is.
    Transfer {
        /// `sha256:` and the first digits.
        blob: String,
        /// Which of how many, counted from 1.
        number: u32,
        of: u32,
        bytes: u64,
        size_bytes: u64,
        bytes_per_second: u64,
        /// Until it is whole, if that can be said.
        left_ms: Option<u64>,
    },
}
