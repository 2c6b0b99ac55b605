//! What may be asked, decided without looking at the host: request in, plan or refusal out.
//!
//! The daemon is taken to be hostile. A [`Plan`] names only objects that the helper's own
//! arguments allow; whatever executes it need not check names again, but must still check what
//! only the host can tell (whose process a pid is, what a path resolves to).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::config::{Config, Jails, Vmm, is_plain_absolute};
use super::snapshot::{self, SnapshotPlan};
use crate::model::{ProcessIdentity, Subnet, TapName, VmId};
use crate::wire::helper::{
    HelperBody, HelperRequest, SpawnVmm, StartVmm, WireAccess, WireJail, WireLimits, names_vm,
};

/// HUP INT QUIT KILL USR1 USR2 TERM CONT (signal(7), the numbers of x86 and arm64).
pub(super) const SIGNALS: [i32; 8] = [1, 2, 3, 9, 10, 12, 15, 18];
const MAX_ARGS: usize = 512;
const MAX_ARG_BYTES: usize = 8 << 10;
const MAX_PATH_BYTES: usize = 4095;
/// More than an image and the largest disk that a VM may ask for.
const MAX_DISK_BYTES: u64 = 4 << 40;
/// `PID_MAX_LIMIT` of 64-bit kernels.
const MAX_PID: u32 = 1 << 22;

const MIN_MEMORY: u64 = 8 << 20;
const MIN_TASKS: u32 = 8;
const MAX_TASKS: u32 = 4096;
const MAX_JAIL_FILES: usize = 64;
const MAX_NAME_BYTES: usize = 32;
/// What the jailer and the porch make in a jail's root directory.
const RESERVED: [&str; 6] = ["s", "dev", "run", "sys", "proc", "old_root"];

/// A request that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Status,
    EnsureBridge,
    RemoveBridge,
    EnsureTap { tap: TapName },
    RemoveTap { tap: TapName },
    ListTaps,
    EnsureNat { vm: VmId, address: Ipv4Addr },
    RemoveNat { vm: VmId, address: Ipv4Addr },
    ListNat,
    Spawn(SpawnPlan),
    Find { vm: VmId },
    Signal { vm: VmId, process: ProcessIdentity, signal: i32 },
    End { vm: VmId },
    Exit { vm: VmId, process: ProcessIdentity },
    AttachLoop { path: PathBuf, read_only: bool },
    DetachLoop { path: PathBuf },
    ListLoops,
    EnsureSnapshot(SnapshotPlan),
    RemoveSnapshot { vm: VmId },
    ListSnapshots,
    Permits,
    Survey,
    Check(CheckPlan),
    SurveyHost { after: Option<VmId> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPlan {
    pub vm: VmId,
    /// In the VM's directory below the state directory, or the device of its snapshot.
    pub path: PathBuf,
    pub repair: bool,
    /// Below the state directory; opened as the owner.
    pub log: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnPlan {
    pub vm: VmId,
    /// The canonical path of a configured one; whether it is safe is seen when it is started.
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Below the state directory; opened as the owner.
    pub log: PathBuf,
    /// None: asked by a daemon that knows of none.
    pub limits: Option<WireLimits>,
    pub jail: Option<JailPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailPlan {
    /// Of the jail range; the tap's alone.
    pub uid: u32,
    pub tap: TapName,
    /// Below the daemon's run directory.
    pub sockets: PathBuf,
    pub files: Vec<JailFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailFile {
    /// Below the state directory, or the device of the VM's snapshot.
    pub path: PathBuf,
    pub name: String,
    pub access: WireAccess,
}

impl Plan {
    /// What it is about, for the audit log.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::Status
            | Self::EnsureBridge
            | Self::RemoveBridge
            | Self::ListTaps
            | Self::ListNat
            | Self::ListLoops
            | Self::ListSnapshots
            | Self::Permits
            | Self::Survey
            | Self::SurveyHost { .. } => String::new(),
            Self::EnsureTap { tap } | Self::RemoveTap { tap } => tap.to_string(),
            Self::EnsureNat { vm, address } | Self::RemoveNat { vm, address } => {
                format!("{vm} {address}")
            }
            Self::Spawn(SpawnPlan { vm, jail: Some(JailPlan { uid, tap, .. }), .. }) => {
                format!("{vm} {tap} {uid}")
            }
            Self::Spawn(SpawnPlan { vm, .. }) | Self::Find { vm } | Self::End { vm } => {
                vm.to_string()
            }
            Self::Signal { vm, process, signal } => format!("{vm} {} {signal}", process.pid),
            Self::Exit { vm, process } => format!("{vm} {}", process.pid),
            Self::EnsureSnapshot(SnapshotPlan { vm, .. }) | Self::RemoveSnapshot { vm } => {
                vm.to_string()
            }
            Self::Check(CheckPlan { path, .. }) => path.display().to_string(),
            Self::AttachLoop { path, .. } | Self::DetachLoop { path } => path.display().to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

fn denied<T>(reason: impl Into<String>) -> Result<T, Denied> {
    Err(Denied(reason.into()))
}

/// Whether this peer may ask anything. Before the first decode.
pub fn admit(config: &Config, peer_uid: u32) -> Result<(), Denied> {
    // Strangers learn nothing of what is configured.
    if peer_uid == 0 || peer_uid == config.owner_uid { Ok(()) } else { denied("not allowed") }
}

pub fn policy(config: &Config, peer_uid: u32, request: &HelperRequest) -> Result<Plan, Denied> {
    use HelperBody as B;
    admit(config, peer_uid)?;
    let plan = match &request.body {
        B::Status => Plan::Status,
        B::EnsureBridge { bridge, subnet } => {
            check_bridge(config, bridge)?;
            let subnet = Subnet::try_from(*subnet).map_err(|error| Denied(error.to_string()))?;
            if subnet != config.subnet {
                return denied(format!("subnet {subnet} is not this helper's, {}", config.subnet));
            }
            Plan::EnsureBridge
        }
        B::RemoveBridge { bridge } => {
            check_bridge(config, bridge)?;
            Plan::RemoveBridge
        }
        B::EnsureTap { bridge, tap } => {
            check_bridge(config, bridge)?;
            Plan::EnsureTap { tap: check_tap(config, tap)? }
        }
        B::RemoveTap { tap } => Plan::RemoveTap { tap: check_tap(config, tap)? },
        B::ListTaps { bridge } => {
            check_bridge(config, bridge)?;
            Plan::ListTaps
        }
        B::EnsureNat { bridge, vm, address } => {
            check_bridge(config, bridge)?;
            Plan::EnsureNat { vm: VmId(*vm), address: check_address(config, *address)? }
        }
        B::RemoveNat { bridge, vm, address } => {
            check_bridge(config, bridge)?;
            Plan::RemoveNat { vm: VmId(*vm), address: check_address(config, *address)? }
        }
        B::ListNat { bridge } => {
            check_bridge(config, bridge)?;
            Plan::ListNat
        }
        B::SpawnVmm(spawn) => Plan::Spawn(check_spawn(config, spawn)?),
        B::FindVmm { vm } => Plan::Find { vm: VmId(*vm) },
        B::SignalVmm { vm, process, signal } => {
            if !SIGNALS.contains(signal) {
                return denied(format!("signal {signal} is not one that VMMs are sent"));
            }
            let process = check_process(process.clone().into())?;
            Plan::Signal { vm: VmId(*vm), process, signal: *signal }
        }
        B::EndVmm { vm } => Plan::End { vm: VmId(*vm) },
        B::ExitStatus { vm, process } => {
            Plan::Exit { vm: VmId(*vm), process: check_process(process.clone().into())? }
        }
        B::AttachLoop { path, read_only } => {
            let path = below_state(config, path)?;
            // The kernel keeps 63 bytes of the name, but sysfs shows the whole path.
            Plan::AttachLoop { path, read_only: *read_only }
        }
        B::DetachLoop { path } => Plan::DetachLoop { path: below_state(config, path)? },
        B::ListLoops => Plan::ListLoops,
        B::EnsureSnapshot { vm, base, changes, bytes } => {
            if *bytes == 0 || *bytes > MAX_DISK_BYTES {
                return denied(format!("a disk of {bytes} bytes"));
            }
            let (base, changes) = (below_state(config, base)?, below_state(config, changes)?);
            // Two guests that write to one file would destroy it.
            check_own(&changes, *vm)?;
            Plan::EnsureSnapshot(SnapshotPlan { vm: VmId(*vm), base, changes, bytes: *bytes })
        }
        B::RemoveSnapshot { vm } => Plan::RemoveSnapshot { vm: VmId(*vm) },
        B::ListSnapshots => Plan::ListSnapshots,
        B::StartVmm(start) => Plan::Spawn(check_start(config, start)?),
        B::Permits => Plan::Permits,
        B::SurveyNetwork { bridge } => {
            check_bridge(config, bridge)?;
            Plan::Survey
        }
        B::CheckDisk { vm, path, repair, log } => {
            let (vm, device) = (VmId(*vm), snapshot::path(VmId(*vm)));
            let log = below_state(config, log)?;
            let path = match Path::new(path) == device {
                true => device,
                false => below_state(config, path)?,
            };
            if !path.starts_with(snapshot::DEVICES) {
                check_own(&path, vm.0)?;
            }
            Plan::Check(CheckPlan { vm, path, repair: *repair, log })
        }
        B::SurveyHost { after } => Plan::SurveyHost { after: after.map(VmId) },
    };
    Ok(plan)
}

fn check_bridge(config: &Config, bridge: &str) -> Result<(), Denied> {
    if bridge == config.bridge {
        return Ok(());
    }
    denied(format!("bridge {bridge:?} is not this helper's, {}", config.bridge))
}

fn check_tap(config: &Config, tap: &str) -> Result<TapName, Denied> {
    let prefix = &config.tap_prefix;
    let name = TapName(tap.to_owned());
    // Made again from its number it must be the same: no `+1`, no `007`.
    match name.slot(prefix).map(|slot| TapName::new(prefix, slot)) {
        Some(same) if same == name && tap.len() <= 15 => Ok(name),
        _ => denied(format!("tap {tap:?} is not {prefix} and a slot number")),
    }
}

fn check_address(config: &Config, address: [u8; 4]) -> Result<Ipv4Addr, Denied> {
    let (address, subnet) = (Ipv4Addr::from(address), config.subnet);
    let size = 1_u32 << (32 - u32::from(subnet.prefix_len()));
    let broadcast = u32::from(subnet.network()) + (size - 1);
    let guest = subnet.contains(address)
        && address != subnet.network()
        && address != subnet.gateway()
        && u32::from(address) != broadcast;
    if guest { Ok(address) } else { denied(format!("{address} is not a guest's in {subnet}")) }
}

fn check_process(process: ProcessIdentity) -> Result<ProcessIdentity, Denied> {
    let boot_id = process.host_boot_id.as_str();
    let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    if !(2..=MAX_PID).contains(&process.pid)
        || boot_id.is_empty()
        || boot_id.len() > 64
        || !boot_id.chars().all(hex)
    {
        return denied(format!("pid {} of boot {boot_id:?} names no process", process.pid));
    }
    Ok(process)
}

fn check_spawn(config: &Config, spawn: &SpawnVmm) -> Result<SpawnPlan, Denied> {
    let SpawnVmm { vm, program, args, log } = spawn;
    let program = check_program(config, program)?.canonical.clone();
    check_args(args)?;
    check_named(args, *vm)?;
    let log = below_state(config, log)?;
    Ok(SpawnPlan { vm: VmId(*vm), program, args: args.clone(), log, limits: None, jail: None })
}

fn check_start(config: &Config, start: &StartVmm) -> Result<SpawnPlan, Denied> {
    let StartVmm { vm, program, args, log, limits, jail } = start;
    let program = check_program(config, program)?.canonical.clone();
    check_args(args)?;
    if jail.is_none() {
        check_named(args, *vm)?;
    }
    let WireLimits { memory_bytes, cpus, tasks } = *limits;
    if memory_bytes < MIN_MEMORY || cpus == 0 || !(MIN_TASKS..=MAX_TASKS).contains(&tasks) {
        return denied(format!("{limits:?} is no room to run in, or no limit"));
    }
    let vm = VmId(*vm);
    let jail = jail.as_ref().map(|jail| check_jail(config, vm, &program, jail)).transpose()?;
    let log = below_state(config, log)?;
    Ok(SpawnPlan { vm, program, args: args.clone(), log, limits: Some(*limits), jail })
}

fn check_program<'a>(config: &'a Config, asked: &str) -> Result<&'a Vmm, Denied> {
    let program = Path::new(asked);
    let known = |vmm: &&Vmm| vmm.given == program || vmm.canonical == program;
    // Compared as text: `Path` would forgive `/usr//bin/x`.
    let vmm = config.vmms.iter().find(known).filter(|_| is_plain_absolute(program));
    vmm.ok_or_else(|| Denied(format!("{asked:?} is not a configured VMM")))
}

fn check_args(args: &[String]) -> Result<(), Denied> {
    if args.len() > MAX_ARGS {
        return denied(format!("{} arguments, at most {MAX_ARGS}", args.len()));
    }
    for arg in args {
        if arg.len() > MAX_ARG_BYTES || arg.contains('\0') {
            return denied("an argument that is too long or has a zero byte in it");
        }
    }
    Ok(())
}

fn check_named(args: &[String], vm: [u8; 16]) -> Result<(), Denied> {
    if names_vm(args.iter().map(String::as_str), vm) {
        return Ok(());
    }
    denied("no argument carries the VM's id, so its process could not be found again")
}

fn check_jail(
    config: &Config,
    vm: VmId,
    program: &Path,
    jail: &WireJail,
) -> Result<JailPlan, Denied> {
    let Some(Jails { uids, vm_run_dir, .. }) = &config.jails else {
        return denied("this helper was told of no jailer");
    };
    let tap = check_tap(config, &jail.tap)?;
    let slot = tap.slot(&config.tap_prefix).map(u32::from);
    // The last is for checks of disks.
    let has = |uid: &u32| uids.contains(uid) && uid != uids.end();
    let uid = slot.and_then(|slot| uids.start().checked_add(slot)).filter(has);
    let Some(uid) = uid else {
        return denied(format!("tap {tap} has no user in {}-{}", uids.start(), uids.end()));
    };
    if jail.files.len() > MAX_JAIL_FILES {
        return denied(format!("{} files, at most {MAX_JAIL_FILES}", jail.files.len()));
    }
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let mut taken = RESERVED.map(str::to_owned).to_vec();
    taken.extend([program.to_string(), format!("{program}.pid")]);
    let mut files = vec![];
    for file in &jail.files {
        let name = file.name.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty()
            || name.len() > MAX_NAME_BYTES
            || name.starts_with('.')
            || !name.chars().all(plain)
            || taken.contains(&name)
        {
            return denied(format!("{name:?} is no name for a file in a jail"));
        }
        taken.push(name.clone());
        let path = match Path::new(&file.path) == snapshot::path(vm) {
            true => snapshot::path(vm),
            false => below_state(config, &file.path)?,
        };
        files.push(JailFile { path, name, access: file.access });
    }
    let sockets = below(vm_run_dir, &jail.sockets)?;
    Ok(JailPlan { uid, tap, sockets, files })
}

fn check_own(path: &Path, vm: [u8; 16]) -> Result<(), Denied> {
    let name = VmId(vm).to_string();
    if path.components().any(|part| part.as_os_str() == name.as_str()) {
        return Ok(());
    }
    denied(format!("{} is not in the VM's directory", path.display()))
}

fn below_state(config: &Config, path: &str) -> Result<PathBuf, Denied> {
    below(&config.state_dir, path)
}

fn below(top: &Path, path: &str) -> Result<PathBuf, Denied> {
    let given = Path::new(path);
    let below = is_plain_absolute(given)
        && path.len() <= MAX_PATH_BYTES
        && given != top
        && given.starts_with(top);
    if below {
        return Ok(given.to_owned());
    }
    denied(format!("{path:?} is not below {}", top.display()))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
