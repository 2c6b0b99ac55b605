//! The root helper's own small protocol: one idempotent request a connection.
//!
//! The greeting is `hello`'s with another magic; frames are at most 64 KiB. Enums are append only
//! and every variant has its bytes in `tests/fixtures/helper`. Nothing here may grow a way to name
//! a path, link or program that the helper's own arguments do not allow: what it may touch is
//! decided there, and the daemon's bytes are hostile input.

use std::net::Ipv4Addr;

use super::codec::{Decode, Encode};
use super::hello::Protocol;
use crate::model::{ProcessIdentity, Subnet, SubnetError};

pub use super::frame::{FrameError, Frames};

/// The helper's protocol, spoken by the daemon.
pub const HELPER: Protocol = Protocol { magic: *b"BNGRHLPR", min: 1, max: 1 };

pub const MAX_FRAME_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HelperRequest {
    pub op_id: [u8; 16],
    pub body: HelperBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum HelperBody {
    Status,
    EnsureBridge {
        bridge: String,
        subnet: WireSubnet,
    },
    RemoveBridge {
        bridge: String,
    },
    EnsureTap {
        bridge: String,
        tap: String,
    },
    RemoveTap {
        tap: String,
    },
    ListTaps {
        bridge: String,
    },
    EnsureNat {
        bridge: String,
        vm: [u8; 16],
        address: [u8; 4],
    },
    RemoveNat {
        bridge: String,
        vm: [u8; 16],
        address: [u8; 4],
    },
    ListNat {
        bridge: String,
    },
    SpawnVmm(SpawnVmm),
    FindVmm {
        vm: [u8; 16],
    },
    SignalVmm {
        vm: [u8; 16],
        process: WireProcess,
        signal: i32,
    },
    EndVmm {
        vm: [u8; 16],
    },
    ExitStatus {
        vm: [u8; 16],
        process: WireProcess,
    },
    AttachLoop {
        path: String,
        read_only: bool,
    },
    DetachLoop {
        path: String,
    },
    ListLoops,
    /// The root disk of a VM: `base`, zeros behind it up to `bytes`, and over them a snapshot that
    /// keeps what is written in `changes`.
    EnsureSnapshot {
        vm: [u8; 16],
        base: String,
        changes: String,
        bytes: u64,
    },
    RemoveSnapshot {
        vm: [u8; 16],
    },
    /// Fails with the code `not-found` where none can be made.
    ListSnapshots,
    StartVmm(StartVmm),
    Permits,
    /// What is there of all that the other requests about the network make. Changes nothing.
    SurveyNetwork {
        bridge: String,
    },
    /// Runs `e2fsck` on a disk of the VM's: a file in its own directory, or its block device.
    CheckDisk {
        vm: [u8; 16],
        path: String,
        /// Whether everything that it would ask about is answered with yes.
        repair: bool,
        /// Takes what it says.
        log: String,
    },
    /// What there is of VMs, whoever started them, of those whose ids come after this. Changes nothing.
    SurveyHost {
        after: Option<[u8; 16]>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SpawnVmm {
    pub vm: [u8; 16],
    pub program: String,
    /// Without the program's own name. One of them carries the VM's id: see [`names_vm`].
    pub args: Vec<String>,
    pub log: String,
}

/// What `SpawnVmm` does, behind walls.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StartVmm {
    pub vm: [u8; 16],
    pub program: String,
    /// As for `SpawnVmm`; in a jail the helper adds `--id` and the VM's id itself.
    pub args: Vec<String>,
    pub log: String,
    pub limits: WireLimits,
    pub jail: Option<WireJail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireLimits {
    pub memory_bytes: u64,
    /// Whole CPUs.
    pub cpus: u32,
    /// Processes and threads.
    pub tasks: u32,
}

/// The VM's user is the jail range's first and the tap's slot number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireJail {
    pub tap: String,
    /// A directory of the daemon's below its run directory; `/s` in the jail.
    pub sockets: String,
    pub files: Vec<WireJailFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireJailFile {
    /// Below the state directory, or the VM's own block device in `/dev/banger`.
    pub path: String,
    /// In the jail's root directory.
    pub name: String,
    pub access: WireAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireAccess {
    /// Left as it is, and mounted read-only.
    Shared,
    /// Given to the VM's user and the owner's group, mounted read-only.
    Private,
    /// Given likewise, and mounted writable.
    Writable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireSubnet {
    pub network: [u8; 4],
    pub prefix_len: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireProcess {
    pub pid: u32,
    pub start_ticks: u64,
    pub host_boot_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum HelperReply {
    Ok(HelperOk),
    /// Refused by the policy; nothing was done.
    Denied {
        reason: String,
    },
    /// `code` is one of `model::Code`'s stable words.
    Failed {
        code: String,
        message: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum HelperOk {
    Done,
    Status(StatusReport),
    /// Whether forwarding of IPv4 was off and had to be turned on.
    Bridge {
        forwarding_turned_on: bool,
    },
    /// How many ports keep the bridge in place; zero: it is gone.
    BridgeRemoved {
        ports_left: u32,
    },
    Taps(Vec<String>),
    Nat(Vec<NatEntry>),
    Process(Option<WireProcess>),
    Exit(Option<WireExit>),
    Loop {
        device: String,
    },
    Loops(Vec<LoopEntry>),
    Snapshots(Vec<[u8; 16]>),
    Permits(PermitReport),
    Network(NetworkReport),
    /// The exit status of `e2fsck`.
    Checked {
        status: i32,
    },
    Host(HostReport),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StatusReport {
    pub version: String,
    pub pid: u32,
    pub uptime_ms: u64,
    pub owner_uid: u32,
    /// Names of the capabilities it holds, of those it can need: `NET_ADMIN`.
    pub capabilities: Vec<String>,
    pub bridge: String,
    pub tap_prefix: String,
    pub table: String,
    pub subnet: WireSubnet,
    pub vmms: Vec<VmmProgram>,
    pub state_dir: String,
    /// Where VMMs get their cgroups; none: they are found by command line alone.
    pub cgroup: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VmmProgram {
    pub path: String,
    /// Why it would not be run.
    pub refused: Option<String>,
}

/// What the helper's arguments let it start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PermitReport {
    pub vmms: Vec<VmmProgram>,
    /// None: it was told of no jailer.
    pub jailer: Option<VmmProgram>,
    pub first_uid: u32,
    pub last_uid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NetworkReport {
    /// The helper's own.
    pub version: String,
    /// Ours, up, and with its address.
    pub bridge: bool,
    pub forwarding: bool,
    /// Ours, and whole.
    pub table: bool,
    pub taps: Vec<TapReport>,
    pub nat: Vec<NatEntry>,
    /// Chains of others that drop what is forwarded unless they let it pass: `ip filter FORWARD`.
    pub drops: Vec<String>,
}

/// One that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TapReport {
    pub name: String,
    /// On the bridge, and up.
    pub attached: bool,
    /// A VMM has it open.
    pub used: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HostReport {
    /// The helper's own.
    pub version: String,
    /// Whether VMMs get cgroups here.
    pub cgroups: bool,
    /// In the order of their ids.
    pub vms: Vec<VmReport>,
    /// There are others, after the last of these.
    pub more: bool,
    /// Over files below the state directory, and not gone with whoever has them open.
    pub loops: Vec<LoopEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VmReport {
    pub vm: [u8; 16],
    pub process: Option<WireSeen>,
    pub jailed: bool,
    pub cgroup: bool,
    /// Its root disk, whole or half.
    pub device: bool,
    /// Process or cgroup carry the mark of this helper's state directory.
    pub marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireSeen {
    pub pid: u32,
    pub start_ticks: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NatEntry {
    pub vm: Option<[u8; 16]>,
    pub address: [u8; 4],
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LoopEntry {
    pub device: String,
    pub path: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireExit {
    pub unix_ms: u64,
    pub how: WireExitHow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireExitHow {
    /// The process was not the helper's child, so nobody could tell.
    Unknown,
    Status(i32),
    Signal(i32),
}

impl HelperBody {
    /// The request's name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::EnsureBridge { .. } => "ensure-bridge",
            Self::RemoveBridge { .. } => "remove-bridge",
            Self::EnsureTap { .. } => "ensure-tap",
            Self::RemoveTap { .. } => "remove-tap",
            Self::ListTaps { .. } => "list-taps",
            Self::EnsureNat { .. } => "ensure-nat",
            Self::RemoveNat { .. } => "remove-nat",
            Self::ListNat { .. } => "list-nat",
            Self::SpawnVmm(_) => "spawn-vmm",
            Self::FindVmm { .. } => "find-vmm",
            Self::SignalVmm { .. } => "signal-vmm",
            Self::EndVmm { .. } => "end-vmm",
            Self::ExitStatus { .. } => "exit-status",
            Self::AttachLoop { .. } => "attach-loop",
            Self::DetachLoop { .. } => "detach-loop",
            Self::ListLoops => "list-loops",
            Self::EnsureSnapshot { .. } => "ensure-snapshot",
            Self::RemoveSnapshot { .. } => "remove-snapshot",
            Self::ListSnapshots => "list-snapshots",
            Self::StartVmm(_) => "start-vmm",
            Self::Permits => "permits",
            Self::SurveyNetwork { .. } => "survey-network",
            Self::CheckDisk { .. } => "check-disk",
            Self::SurveyHost { .. } => "survey-host",
        }
    }
}

/// Whether a command line carries the VM's id, so that its process can be found by it: one
/// argument, or one word of it between `,` and `=`, is the id as 32 hex digits or as a UUID.
#[must_use]
pub fn names_vm<'a>(args: impl IntoIterator<Item = &'a str>, vm: [u8; 16]) -> bool {
    let hex = crate::model::VmId(vm).to_string();
    let uuid = vm_uuid(vm);
    args.into_iter()
        .flat_map(|arg| arg.split([',', '=']))
        .any(|word| word == hex || word.eq_ignore_ascii_case(&uuid))
}

/// The ids that a command line carries, as [`names_vm`] finds them.
#[must_use]
pub fn named_vms<'a>(args: impl IntoIterator<Item = &'a str>) -> Vec<[u8; 16]> {
    let words = args.into_iter().flat_map(|arg| arg.split([',', '=']));
    let id = |word: &str| -> Option<crate::model::VmId> {
        let hex = if word.len() == 36 { word.replace('-', "") } else { word.to_owned() };
        let vm = hex.to_ascii_lowercase().parse::<crate::model::VmId>().ok()?;
        names_vm([word], vm.0).then_some(vm)
    };
    let mut vms: Vec<_> = words.filter_map(id).map(|vm| vm.0).collect();
    vms.sort_unstable();
    vms.dedup();
    vms
}

/// The id in the form that QEMU's `-uuid` takes.
#[must_use]
pub fn vm_uuid(vm: [u8; 16]) -> String {
    let hex = crate::model::VmId(vm).to_string();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl From<Subnet> for WireSubnet {
    fn from(subnet: Subnet) -> Self {
        Self { network: subnet.network().octets(), prefix_len: subnet.prefix_len() }
    }
}

impl TryFrom<WireSubnet> for Subnet {
    type Error = SubnetError;

    fn try_from(subnet: WireSubnet) -> Result<Self, SubnetError> {
        Self::new(Ipv4Addr::from(subnet.network), subnet.prefix_len)
    }
}

impl From<&ProcessIdentity> for WireProcess {
    fn from(process: &ProcessIdentity) -> Self {
        let ProcessIdentity { pid, start_ticks, host_boot_id } = process;
        Self { pid: *pid, start_ticks: *start_ticks, host_boot_id: host_boot_id.clone() }
    }
}

impl From<WireProcess> for ProcessIdentity {
    fn from(process: WireProcess) -> Self {
        let WireProcess { pid, start_ticks, host_boot_id } = process;
        Self { pid, start_ticks, host_boot_id }
    }
}

#[cfg(test)]
#[path = "helper_tests.rs"]
mod tests;
