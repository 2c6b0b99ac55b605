//! What is configured before the start: looked at and opened at once, so that faults come early.

use std::fs::File;

use crate::bodies::{
    BootSource, Drive, DriveChange, MachineConfig, Metrics as MetricsBody, Network,
    Vsock as VsockBody,
};
use crate::devices;
use crate::machine::{Machine, Told, done};
use crate::vsock::Vsock;

const MAX_VCPUS: u8 = 32;
const MAX_BOOT_ARGS: usize = 2048;

impl Machine {
    pub(crate) fn set_boot_source(&mut self, new: BootSource) -> Told {
        self.before_start("/boot-source", true)?;
        let failed = |why: String| format!("Boot source error: {why}");
        File::open(&new.kernel_image_path)
            .map_err(|error| failed(format!("The kernel file cannot be opened: {error}")))?;
        if let Some(initrd) = &new.initrd_path {
            File::open(initrd).map_err(|error| {
                let what = "The initrd file cannot be opened due to invalid path or invalid \
                            permissions.";
                failed(format!("{what} {error}"))
            })?;
        }
        if new.boot_args.as_ref().is_some_and(|args| args.len() > MAX_BOOT_ARGS) {
            return Err(failed(
                "The kernel command line is invalid: command line is too long".into(),
            ));
        }
        self.boot = Some(new);
        done()
    }

    pub(crate) fn set_machine(&mut self, new: MachineConfig) -> Told {
        self.before_start("/machine-config", true)?;
        let failed = |why: &str| Err(format!("Machine config error: {why}"));
        if !(1..=MAX_VCPUS).contains(&new.vcpu_count) {
            return failed(
                "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an \
                 even number if SMT is enabled.",
            );
        }
        if new.mem_size_mib == 0 {
            return failed(
                "The memory size (MiB) is either 0, or not a multiple of the configured page size.",
            );
        }
        self.machine = new;
        done()
    }

    pub(crate) fn set_drive(&mut self, id: &str, new: Drive) -> Told {
        if id != new.drive_id {
            return Err("The id from the path does not match the id from the body!".into());
        }
        self.before_start(&format!("/drives/{id}"), true)?;
        let failed = |why: &str| format!("Drive config error: {why}");
        devices::open_drive(&new).map_err(|why| failed(&why))?;
        let other_root = |drive: &&Drive| drive.is_root_device && drive.drive_id != id;
        if new.is_root_device && self.drives.iter().any(|drive| other_root(&drive)) {
            return Err(failed("A root block device already exists!"));
        }
        replace(&mut self.drives, new, |drive| &drive.drive_id);
        done()
    }

    pub(crate) fn change_drive(&mut self, id: &str, new: DriveChange) -> Told {
        if id != new.drive_id {
            return Err("The id from the path does not match the id from the body!".into());
        }
        self.after_start(&format!("/drives/{id}"))?;
        let drive = self.drives.iter_mut().find(|drive| drive.drive_id == id);
        let drive =
            drive.ok_or("Internal VMM error: Failed perform action on device: Device not found")?;
        if let Some(path) = new.path_on_host {
            devices::open_disk(&path, !drive.is_read_only.unwrap_or(false))?;
            drive.path_on_host = Some(path);
        }
        done()
    }

    pub(crate) fn set_network(&mut self, id: &str, new: Network) -> Told {
        if id != new.iface_id {
            let own = &new.iface_id;
            return Err(format!(
                "The id from the path [{id}] does not match the id from the body [{own}]!"
            ));
        }
        self.before_start(&format!("/network-interfaces/{id}"), true)?;
        self.take_tap(&new).map_err(|why| format!("Network config error: {why}"))?;
        replace(&mut self.networks, new, |network| &network.iface_id);
        done()
    }

    pub(crate) fn take_tap(&mut self, network: &Network) -> Result<(), String> {
        // The old one goes first: a tap opens once.
        self.taps.retain(|(id, _)| *id != network.iface_id);
        if !self.faults.no_taps {
            let tap = devices::open_tap(network)?;
            self.taps.push((network.iface_id.clone(), tap));
        }
        Ok(())
    }

    pub(crate) fn set_vsock(&mut self, new: VsockBody) -> Told {
        self.before_start("/vsock", true)?;
        if let Some((_, old)) = self.vsock.take() {
            old.close();
        }
        let opened = Vsock::open(&new.uds_path, &self.metrics);
        let opened = opened.map_err(|why| {
            format!("Vsock config error: Cannot create backend for vsock device: {why}")
        })?;
        self.vsock = Some((new, opened));
        done()
    }

    pub(crate) fn set_metrics(&mut self, new: &MetricsBody) -> Told {
        self.before_start("/metrics", false)?;
        let failed = |why: String| {
            format!(
                "Metrics error: Cannot initialize the metrics system due to bad user input: {why}"
            )
        };
        match self.metrics.open(&new.metrics_path) {
            Ok(true) => done(),
            Ok(false) => Err(failed("Reinitialization of metrics not allowed.".into())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// In the place of the one with the same id, or behind all.
fn replace<T>(all: &mut Vec<T>, new: T, id: impl Fn(&T) -> &String) {
    match all.iter().position(|old| id(old) == id(&new)) {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
}
