//! Start, pause, end, and what survives in a snapshot.

use std::fs::File;
use std::io::Write;

use crate::bodies::{ActionType, SnapshotCreate, SnapshotLoad, SnapshotType, VmChangeTo};
use crate::guest::Guest;
use crate::machine::{Life, Machine, TOO_LATE, Told, done};
use crate::snapshot::State;
use crate::vsock::Vsock;
use crate::{devices, log};

/// How the guest comes to run.
enum Going {
    Boots,
    /// Of that boot, if there was one.
    GoesOn(Option<String>),
}

impl Machine {
    pub(crate) fn act(&mut self, action: ActionType) -> Told {
        match action {
            ActionType::InstanceStart => self.start(),
            ActionType::FlushMetrics => {
                self.after_start("FlushMetrics")?;
                self.metrics.flush();
                done()
            }
            ActionType::SendCtrlAltDel => {
                self.after_start("SendCtrlAltDel")?;
                if !self.faults.ignore_ctrl_alt_del && self.life == Life::Running {
                    let metrics = self.metrics.clone();
                    // Not before the answer left.
                    std::thread::spawn(move || {
                        std::thread::sleep(std::time::Duration::from_millis(100));
                        metrics.exit(0);
                    });
                }
                done()
            }
        }
    }

    fn start(&mut self) -> Told {
        self.before_start("InstanceStart", true)?;
        let Some(boot) = self.boot.clone() else {
            return Err(
                "Start microvm error: Cannot start microvm without kernel configuration.".into()
            );
        };
        if boot.boot_args.as_ref().is_some_and(|args| args.contains("console=ttyS0")) {
            self.print("A played guest boots.\n");
        }
        self.go(Going::Boots);
        done()
    }

    /// What the guest says on its serial line.
    fn print(&self, words: &str) {
        match self.serial.as_ref().and_then(|serial| serial.serial_out_path.as_ref()) {
            Some(path) => {
                let open = File::options().write(true).create(true).truncate(false).open(path);
                open.expect("the serial's file").write_all(words.as_bytes()).expect("its words");
            }
            None => print!("{words}"),
        }
    }

    /// The guest runs from here on, from its kernel or from where it was.
    fn go(&mut self, going: Going) {
        self.life = Life::Running;
        for drive in &self.drives {
            // Of each device, and of all of its kind together.
            for group in [format!("block_{}", drive.drive_id), "block".to_owned()] {
                self.metrics.add(&group, "read_bytes", 4096);
                self.metrics.add(&group, "read_count", 1);
                self.metrics.add(&group, "write_bytes", 512);
            }
        }
        for network in &self.networks {
            for group in [format!("net_{}", network.iface_id), "net".to_owned()] {
                self.metrics.add(&group, "tx_bytes_count", 90);
                self.metrics.add(&group, "rx_bytes_count", 42);
            }
        }
        if let Some((_, vsock)) = &self.vsock {
            let drives = self.drives.iter().filter_map(|drive| drive.path_on_host.as_deref());
            let (goes_on, boot_id) = match going {
                Going::Boots => (false, None),
                Going::GoesOn(boot_id) => (true, boot_id),
            };
            let guest = Guest::new(drives, &self.faults.guest, vsock, &self.metrics, boot_id);
            if let Some(guest) = guest {
                vsock.plug(guest.clone());
                if goes_on { guest.resumed() } else { guest.boot() }
            }
        }
        if self.faults.lose_socket {
            drop(std::fs::remove_file(&self.run.api_sock));
        }
        log(&self.run.id, "Successfully started microvm");
    }

    pub(crate) fn pause(&mut self, to: VmChangeTo) -> Told {
        let (name, life) = match to {
            VmChangeTo::Paused => ("Paused", Life::Paused),
            VmChangeTo::Resumed => ("Resumed", Life::Running),
        };
        self.after_start(name)?;
        self.life = life;
        if let Some((_, vsock)) = &self.vsock {
            vsock.set_paused(life == Life::Paused);
        }
        done()
    }

    pub(crate) fn save(&mut self, new: &SnapshotCreate) -> Told {
        self.after_start("/snapshot/create")?;
        if self.life != Life::Paused {
            return Err("Create snapshot error: Cannot save the microVM state: Operation not \
                        allowed: save/restore unavailable while running"
                .into());
        }
        if matches!(new.snapshot_type, SnapshotType::Diff) {
            return Err("the fake Firecracker writes no differences".into());
        }
        let guest = self.vsock.as_ref().and_then(|(_, vsock)| vsock.guest());
        let state = State::new(
            self.boot.clone().unwrap_or_default(),
            self.machine.clone(),
            self.drives.clone(),
            self.networks.clone(),
            self.vsock.as_ref().map(|(body, _)| body.clone()),
            guest.map(|guest| guest.boot_id().to_owned()),
        );
        state.write(&new.snapshot_path, &new.mem_file_path)?;
        done()
    }

    pub(crate) fn load(&mut self, new: &SnapshotLoad) -> Told {
        if let Some(words) = self.faults.meet("/snapshot/load") {
            return Err(words);
        }
        if self.life != Life::NotStarted {
            return Err(TOO_LATE.into());
        }
        if self.configured {
            return Err("Load snapshot error: Loading a microVM snapshot not allowed after \
                        configuring boot-specific resources."
                .into());
        }
        let state = State::read(new)?;
        let failed = |why: String| {
            format!(
                "Load snapshot error: Failed to restore from snapshot: Failed to build microVM \
                 from snapshot: {why}"
            )
        };
        for drive in &state.drives {
            devices::open_drive(drive).map_err(failed)?;
        }
        self.networks = state.networks;
        for network in &mut self.networks {
            let other = new.network_overrides.iter().find(|new| new.iface_id == network.iface_id);
            if let Some(other) = other {
                network.host_dev_name.clone_from(&other.host_dev_name);
            }
        }
        for network in self.networks.clone() {
            self.take_tap(&network).map_err(failed)?;
        }
        if let Some(mut body) = state.vsock {
            if let Some(other) = &new.vsock_override {
                body.uds_path.clone_from(&other.uds_path);
            }
            let opened = Vsock::open(&body.uds_path, &self.metrics).map_err(failed)?;
            self.vsock = Some((body, opened));
        }
        (self.boot, self.machine, self.drives) = (Some(state.boot), state.machine, state.drives);
        self.go(Going::GoesOn(state.boot_id));
        if !new.resume_vm {
            self.pause(VmChangeTo::Paused)?;
        }
        done()
    }
}
