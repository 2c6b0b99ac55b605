//! QEMU's command line, from a boot plan. Pure: no file is looked at, nothing is started.
//!
//! Each option is here for a reason that is written beside it; `-nodefaults -no-user-config` takes
//! away whatever QEMU would add by itself.

use std::path::Path;

use banger_agent::contract::{control, lane};

use crate::host::vmm::accel::Accelerator;
use crate::host::vmm::socket::{plain_path, socket_path};
use crate::model::VmId;
use crate::ports::{BootPlan, DiskAttachment, HostError};

/// MiB of translated code. QEMU's own default is 1 GiB, which a guest that runs long enough fills.
pub(super) const TCG_CACHE_MIB: u32 = 256;

/// What the host contributes to the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub(super) accelerator: Accelerator,
    pub(super) tsc_khz: Option<u64>,
}

/// The arguments after the program's name.
pub(super) fn arguments(plan: &BootPlan, machine: Machine) -> Result<Vec<String>, HostError> {
    let mut line = Line::default();
    line.identity(plan);
    line.machine(plan, machine);
    line.channels(plan)?;
    for (index, disk) in plan.disks.iter().enumerate() {
        line.disk(index, disk)?;
    }
    line.network(plan);
    line.kernel(plan, machine)?;
    if plan.resume {
        // The memory comes by the API: a descriptor needs no path that QEMU may open. Paused, for
        // the guest must not go on before its saved memory is gone.
        line.option("-incoming", "defer");
        line.flag("-S");
    }
    Ok(line.0)
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn option(&mut self, flag: &str, value: impl Into<String>) {
        self.flag(flag);
        self.0.push(value.into());
    }

    fn identity(&mut self, plan: &BootPlan) {
        let name = escape(&plan.name);
        self.option("-name", format!("banger-{name},process=banger-{name}"));
        self.option("-uuid", uuid(plan.vm));
    }

    fn machine(&mut self, plan: &BootPlan, machine: Machine) {
        // Without timer, interrupt controller and clock the kernel hangs; without ACPI it finds no
        // virtio device.
        self.option("-M", "microvm,acpi=on,pit=on,pic=on,rtc=on");
        match machine.accelerator {
            Accelerator::Kvm => {
                self.option("-accel", "kvm");
                self.option("-cpu", "host");
            }
            Accelerator::Tcg => {
                self.option("-accel", format!("tcg,tb-size={TCG_CACHE_MIB}"));
                // Told that the processor is quick at it, the guest fills and copies memory byte
                // by byte, and each byte is emulated.
                self.option("-cpu", "max,erms=off");
            }
        }
        self.option("-smp", plan.vcpu.to_string());
        self.option("-m", format!("{}M", plan.memory_mib));
        self.flag("-nodefaults");
        self.flag("-no-user-config");
        self.option("-display", "none");
        // The guest's reboot ends the process, as its power-off does.
        self.flag("-no-reboot");
        self.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        self.option("-msg", "timestamp=on");
        // virtio 1.0 instead of the transitional devices.
        self.option("-global", "virtio-mmio.force-legacy=false");
        // Without entropy from the host the guest's first keys would be made from little.
        self.option("-device", "virtio-rng-device");
    }

    fn channels(&mut self, plan: &BootPlan) -> Result<(), HostError> {
        // In append mode, so that the log can be cut while QEMU holds it open.
        let console = path(&plan.paths.serial_log())?;
        self.option("-chardev", format!("file,id=con,path={console},append=on"));
        self.option("-serial", "chardev:con");
        let api = socket(&plan.paths.api_socket())?;
        self.option("-qmp", format!("unix:{api},server=on,wait=off"));
        self.option("-device", "virtio-serial-device");
        self.port("agent", &plan.paths.control_socket(), control::PORT_NAME)?;
        self.port("lane", &plan.paths.lane_socket(), lane::PORT_NAME)
    }

    /// A byte stream between the guest's port of that name and a Unix socket.
    fn port(&mut self, id: &str, at: &Path, name: &str) -> Result<(), HostError> {
        let path = socket(at)?;
        self.option("-chardev", format!("socket,id={id},path={path},server=on,wait=off"));
        self.option("-device", format!("virtserialport,chardev={id},name={name}"));
        Ok(())
    }

    fn disk(&mut self, index: usize, disk: &DiskAttachment) -> Result<(), HostError> {
        let file = path(&disk.path)?;
        // writeback: the guest's flush is an fsync of the file. unmap: what the guest trims, the
        // sparse file gives back.
        let access = if disk.read_only { "readonly=on" } else { "discard=unmap" };
        self.option(
            "-drive",
            format!("file={file},format=raw,if=none,id=d{index},cache=writeback,{access}"),
        );
        self.option("-device", format!("virtio-blk-device,drive=d{index}"));
        Ok(())
    }

    fn network(&mut self, plan: &BootPlan) {
        let tap = escape(&plan.tap.0);
        // The helper made the link and put it on the bridge; QEMU only opens it.
        self.option("-netdev", format!("tap,id=n0,ifname={tap},script=no,downscript=no"));
        self.option("-device", format!("virtio-net-device,netdev=n0,mac={}", plan.mac));
    }

    fn kernel(&mut self, plan: &BootPlan, machine: Machine) -> Result<(), HostError> {
        self.option("-kernel", plain_path(&plan.kernel)?);
        self.option("-initrd", plain_path(&plan.initrd)?);
        self.option("-append", kernel_arguments(machine));
        Ok(())
    }
}

fn kernel_arguments(machine: Machine) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "quiet".to_owned(),
        // A reboot by triple fault and a panic at once: both end the process.
        "reboot=t".to_owned(),
        "panic=-1".to_owned(),
        // The host emulates the timer; there is nothing to check.
        "no_timer_check".to_owned(),
        "random.trust_cpu=on".to_owned(),
        // Self-tests of the kernel's ciphers: 0.3 s of an emulated boot, and no news about a
        // kernel that booted before.
        "cryptomgr.notests".to_owned(),
        "8250.nr_uarts=1".to_owned(),
    ];
    if machine.accelerator == Accelerator::Tcg {
        // An emulated processor does not speculate.
        words.push("mitigations=off".to_owned());
        // Emulated code is translated once per address it runs at: with addresses drawn anew for
        // every process, its libraries are translated anew too, and it starts four times as slowly.
        words.push("norandmaps".to_owned());
        if let Some(khz) = machine.tsc_khz {
            // See `super::tsc`: left to itself the guest measures, fails when the host is busy,
            // and hangs.
            words.push(format!("tsc_early_khz={khz}"));
            words.push("tsc=reliable".to_owned());
        }
    }
    words.join(" ")
}

/// As QEMU prints it in `query-uuid`.
fn uuid(vm: VmId) -> String {
    let hex = vm.to_string();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// QEMU's option parser ends a value at a comma unless it is doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

fn path(path: &Path) -> Result<String, HostError> {
    plain_path(path).map(|text| escape(&text))
}

fn socket(path: &Path) -> Result<String, HostError> {
    socket_path(path).map(|text| escape(&text))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
