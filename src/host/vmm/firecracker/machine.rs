//! From a boot plan to the VMM's jail and to the requests that make it boot, in their order. Pure:
//! no file is looked at, nothing is sent.
//!
//! Inside the jail every VM's files have the same names, whatever they are called on the host.

use std::path::Path;

use banger_agent::contract::control::VSOCK_PORT;

use super::client::Call;
use super::types::{
    Action, ActionType, BootSource, CacheType, Drive, Entropy, IoEngine, MachineConfig,
    NetworkInterface, Vsock,
};
use crate::host::vmm::socket::socket_path;
use crate::model::Code;
use crate::ports::{BootPlan, DiskAttachment, HostError, Jail, JailAccess, JailFile, VmPaths};

/// What Firecracker gives a guest at most.
const MAX_VCPUS: u32 = 32;
/// The least that a guest may have; it never meets another VM's.
const GUEST_CID: u32 = 3;
pub(super) const INTERFACE: &str = "net0";

/// Where the jail has the directory of sockets.
const SOCKETS: &str = "/s";
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
/// Where it writes its memory and its devices' state, and where it reads those of before.
pub(super) const SAVING: [&str; 2] = ["memory-out", "state-out"];
pub(super) const SAVED: [&str; 2] = ["memory-in", "state-in"];

/// The arguments after the program's name. The id is added by who builds the jail, and what it
/// prints goes where the spawner says.
pub(super) fn arguments(plan: &BootPlan) -> Result<Vec<String>, HostError> {
    let socket = plan.paths.firecracker_socket();
    socket_path(&socket)?;
    // Metrics are named here, for over the API they could not be named again.
    let metrics = in_sockets(&plan.paths.firecracker_metrics());
    let args = ["--api-sock", &in_sockets(&socket), "--metrics-path", &metrics];
    Ok(args.map(str::to_owned).to_vec())
}

/// All that it sees of the host.
pub(super) fn jail(plan: &BootPlan) -> Jail {
    let file = |path: &Path, name: &str, access| JailFile {
        path: path.to_owned(),
        name: name.to_owned(),
        access,
    };
    let mut files = vec![
        file(&plan.kernel, KERNEL, JailAccess::Shared),
        file(&plan.initrd, INITRD, JailAccess::Shared),
    ];
    for (index, disk) in plan.disks.iter().enumerate() {
        let access = match (disk.read_only, disk.path.starts_with(&plan.paths.dir)) {
            (false, _) => JailAccess::Writable,
            (true, true) => JailAccess::Private,
            (true, false) => JailAccess::Shared,
        };
        files.push(file(&disk.path, &drive_id(index), access));
    }
    let (saving, saved) = (plan.paths.saving(), plan.paths.saved());
    for (path, name) in [&saving.memory, &saving.state].into_iter().zip(SAVING) {
        files.push(file(path, name, JailAccess::Writable));
    }
    if plan.resume {
        let access = if plan.memory_is_shared { JailAccess::Shared } else { JailAccess::Private };
        for (path, name) in [&saved.memory, &saved.state].into_iter().zip(SAVED) {
            files.push(file(path, name, access));
        }
    }
    Jail { tap: plan.tap.clone(), sockets: plan.paths.sockets(), files }
}

fn in_sockets(socket: &Path) -> String {
    let name = socket.file_name().unwrap_or_default().to_string_lossy();
    format!("{SOCKETS}/{name}")
}

pub(super) fn in_root(name: &str) -> String {
    format!("/{name}")
}

fn drive_id(index: usize) -> String {
    format!("d{index}")
}

/// Each may be sent again to a VMM whose guest was not started; the last one starts it.
pub(super) fn requests(plan: &BootPlan) -> Result<Vec<Call>, HostError> {
    let put = |path: String, body: Result<Call, serde_json::Error>| {
        body.map_err(|error| HostError::new(Code::Internal, "write request", path).because(error))
    };
    macro_rules! put {
        ($path:expr, $body:expr) => {{
            let path: String = $path.into();
            put(path.clone(), Call::put(path, &$body))?
        }};
    }
    let mut calls = vec![
        put!("/boot-source", boot_source(plan)),
        put!("/machine-config", machine_config(plan)?),
    ];
    for (index, disk) in plan.disks.iter().enumerate() {
        let drive = drive(index, disk);
        calls.push(put!(format!("/drives/{}", drive.drive_id), drive));
    }
    calls.extend([
        put!(format!("/network-interfaces/{INTERFACE}"), network_interface(plan)),
        put!("/vsock", vsock(&plan.paths)?),
        // Without entropy from the host the guest's first keys would be made from little.
        put!("/entropy", Entropy {}),
        put!("/actions", Action { action_type: ActionType::InstanceStart }),
    ]);
    Ok(calls)
}

fn boot_source(plan: &BootPlan) -> BootSource {
    BootSource {
        kernel_image_path: in_root(KERNEL),
        initrd_path: in_root(INITRD),
        boot_args: kernel_arguments(plan.console),
    }
}

/// No `root=`: the initramfs finds the disks by their file systems' UUIDs. Naming any arguments
/// keeps out Firecracker's own, among them `nomodule`, which no modular kernel boots with.
fn kernel_arguments(console: bool) -> String {
    let mut words = vec![
        "panic=1",
        "random.trust_cpu=on",
        // Self-tests of the kernel's ciphers, and no news about a kernel that booted before.
        "cryptomgr.notests",
    ];
    if cfg!(target_arch = "x86_64") {
        words.extend([
            // By the keyboard controller: the one reset that ends the process.
            "reboot=k",
            // The controller is there for its reset and Ctrl-Alt-Del; looking for more takes long.
            "i8042.noaux",
            "i8042.nomux",
            "i8042.dumbkbd",
        ]);
    }
    match console {
        // Who asked for it wants to read what the kernel says.
        true => words.extend(["console=ttyS0", "8250.nr_uarts=1"]),
        // Each byte on an emulated serial line is an exit.
        false if cfg!(target_arch = "x86_64") => words.extend(["quiet", "8250.nr_uarts=0"]),
        false => words.push("quiet"),
    }
    words.join(" ")
}

fn machine_config(plan: &BootPlan) -> Result<MachineConfig, HostError> {
    if plan.vcpu > MAX_VCPUS {
        return Err(HostError::new(Code::Invalid, "use VMM", "firecracker")
            .because(format!("{} vcpu asked for, it gives at most {MAX_VCPUS}", plan.vcpu))
            .hint("ask for fewer, or for --vmm qemu"));
    }
    Ok(MachineConfig { vcpu_count: plan.vcpu, mem_size_mib: plan.memory_mib })
}

fn drive(index: usize, disk: &DiskAttachment) -> Drive {
    Drive {
        drive_id: drive_id(index),
        path_on_host: in_root(&drive_id(index)),
        // True would add `root=` to the kernel's arguments.
        is_root_device: false,
        is_read_only: disk.read_only,
        // Not the default: with that one, what a guest syncs does not reach the disk.
        cache_type: CacheType::Writeback,
        io_engine: IoEngine::Sync,
    }
}

fn network_interface(plan: &BootPlan) -> NetworkInterface {
    NetworkInterface {
        iface_id: INTERFACE.to_owned(),
        host_dev_name: plan.tap.to_string(),
        guest_mac: plan.mac.to_string(),
    }
}

fn vsock(paths: &VmPaths) -> Result<Vsock, HostError> {
    let socket = paths.vsock_socket();
    // The longest path of those that it stands for.
    socket_path(&paths.vsock_listener(VSOCK_PORT))?;
    Ok(Vsock { guest_cid: GUEST_CID, uds_path: in_sockets(&socket) })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
pub(super) mod tests;
