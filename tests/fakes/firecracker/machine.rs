//! The VM's life: what is configured, whether it runs, and what may be asked for when.

use std::fs::File;
use std::sync::{Arc, Mutex};

use serde::de::DeserializeOwned;
use serde_json::json;

use crate::GENERIC_ERROR;
use crate::arguments::Run;
use crate::bodies::{
    Action, BootSource, Drive, Entropy, Logger, MachineConfig, Network, Serial, VmChange,
    Vsock as VsockBody,
};
use crate::faults::Faults;
use crate::http::{Answer, Request};
use crate::metrics::Metrics;
use crate::vsock::Vsock;

pub(crate) const TOO_LATE: &str =
    "The requested operation is not supported after starting the microVM.";
const TOO_EARLY: &str = "The requested operation is not supported before starting the microVM.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    NotStarted,
    Running,
    Paused,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) run: Run,
    pub(crate) faults: Faults,
    pub(crate) life: Life,
    pub(crate) metrics: Metrics,
    pub(crate) boot: Option<BootSource>,
    pub(crate) machine: MachineConfig,
    pub(crate) drives: Vec<Drive>,
    pub(crate) networks: Vec<Network>,
    pub(crate) taps: Vec<(String, File)>,
    pub(crate) vsock: Option<(VsockBody, Vsock)>,
    pub(crate) serial: Option<Serial>,
    /// Something was configured that a snapshot brings itself.
    pub(crate) configured: bool,
}

/// Fine, with a body or without; or refused in these words.
pub(crate) type Told = Result<String, String>;

/// One request. Those that end the process do so when their answer had time to leave.
pub(crate) fn answer(machine: &Arc<Mutex<Machine>>, request: &Request) -> Answer {
    let mut machine = machine.lock().unwrap();
    let method = request.method.to_ascii_lowercase();
    machine.metrics.add(&format!("{method}_api_requests"), "count", 1);
    let told = machine.tell(request);
    let (status, body) = match told {
        Ok(body) if body.is_empty() => (204, body),
        Ok(body) => (200, body),
        Err(words) => (400, json!({ "fault_message": words }).to_string()),
    };
    let load = request.path == "/snapshot/load" && !body.contains("not allowed after");
    if load && status == 400 && request.method == "PUT" {
        let metrics = machine.metrics.clone();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            metrics.exit(GENERIC_ERROR);
        });
    }
    Answer { status, body }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        format!("An error occurred when deserializing the json body of a request: {error}.")
    })
}

impl Machine {
    pub(crate) fn new(run: Run, faults: Faults) -> Self {
        let metrics = Metrics::default();
        if let Some(path) = &run.metrics {
            metrics.open(path).expect("the file for metrics opens");
        }
        let machine = parse(br#"{"vcpu_count":1,"mem_size_mib":128}"#).expect("the defaults");
        Self {
            run,
            faults,
            life: Life::NotStarted,
            metrics,
            boot: None,
            machine,
            drives: vec![],
            networks: vec![],
            taps: vec![],
            vsock: None,
            serial: None,
            configured: false,
        }
    }

    /// Its clock stands while the guest does.
    pub(crate) fn flush_if_running(&self) {
        if self.life == Life::Running {
            self.metrics.flush();
        }
    }

    fn tell(&mut self, request: &Request) -> Told {
        let path = request.path.trim_start_matches('/');
        let unknown = || format!("Invalid request method and/or path: {} {path}.", request.method);
        let (resource, id) = match path.split_once('/') {
            Some((resource, id)) => (resource, Some(id)),
            None => (path, None),
        };
        match (request.method.as_str(), &request.body) {
            ("GET", None) => self.get(path).ok_or_else(unknown),
            ("GET", Some(_)) => Err("GET request cannot have a body.".into()),
            ("PUT", None) => Err("Empty PUT request.".into()),
            ("PATCH", None) => Err("Empty PATCH request.".into()),
            ("PUT", Some(body)) => self.put(resource, id, body).unwrap_or_else(|| Err(unknown())),
            ("PATCH", Some(body)) => {
                self.patch(resource, id, body).unwrap_or_else(|| Err(unknown()))
            }
            _ => Err(unknown()),
        }
    }

    fn get(&self, path: &str) -> Option<String> {
        if let Some(words) = self.faults.meet(&format!("/{path}")) {
            return Some(words);
        }
        let value = match path {
            "" => json!({
                "id": self.run.id, "state": self.state_name(),
                "vmm_version": self.faults.version, "app_name": "Firecracker",
            }),
            "version" => json!({ "firecracker_version": self.faults.version }),
            "machine-config" => json!(self.machine),
            "vm/config" => json!({
                "boot-source": self.boot.clone().unwrap_or_default(),
                "machine-config": self.machine, "drives": self.drives,
                "network-interfaces": self.networks,
                "vsock": self.vsock.as_ref().map(|(body, _)| body),
            }),
            _ => return None,
        };
        Some(value.to_string())
    }

    fn state_name(&self) -> &'static str {
        match self.life {
            Life::NotStarted => "Not started",
            Life::Running => "Running",
            Life::Paused => "Paused",
        }
    }

    /// `None` is a path that there is not.
    fn put(&mut self, resource: &str, id: Option<&str>, body: &[u8]) -> Option<Told> {
        Some(match (resource, id) {
            ("boot-source", None) => parse(body).and_then(|new| self.set_boot_source(new)),
            ("machine-config", None) => parse(body).and_then(|new| self.set_machine(new)),
            ("drives", id) => named(id).and_then(|id| self.set_drive(id, parse(body)?)),
            ("network-interfaces", id) => {
                named(id).and_then(|id| self.set_network(id, parse(body)?))
            }
            ("vsock", None) => parse(body).and_then(|new| self.set_vsock(new)),
            ("entropy", None) => {
                parse::<Entropy>(body).and_then(|_| self.before_start("/entropy", true))
            }
            ("logger", None) => {
                parse::<Logger>(body).and_then(|_| self.before_start("/logger", false))
            }
            ("serial", None) => parse(body).and_then(|new| {
                self.before_start("/serial", false)?;
                self.serial = Some(new);
                done()
            }),
            ("metrics", None) => parse(body).and_then(|new| self.set_metrics(&new)),
            ("actions", None) => parse(body).and_then(|new: Action| self.act(new.action_type)),
            ("snapshot", Some("create")) => parse(body).and_then(|new| self.save(&new)),
            ("snapshot", Some("load")) => parse(body).and_then(|new| self.load(&new)),
            ("snapshot", Some(other)) => {
                Err(format!("Invalid request method and/or path: PUT /snapshot/{other}."))
            }
            _ => return None,
        })
    }

    fn patch(&mut self, resource: &str, id: Option<&str>, body: &[u8]) -> Option<Told> {
        Some(match (resource, id) {
            ("vm", None) => parse(body).and_then(|new: VmChange| self.pause(new.state)),
            ("drives", id) => named(id).and_then(|id| self.change_drive(id, parse(body)?)),
            ("machine-config", None) => Err("the fake Firecracker has no PATCH of this".into()),
            _ => return None,
        })
    }

    /// Meets the point's faults, and refuses what comes too late.
    pub(crate) fn before_start(&mut self, point: &str, configures: bool) -> Told {
        if let Some(words) = self.faults.meet(point) {
            return Err(words);
        }
        if self.life != Life::NotStarted {
            return Err(TOO_LATE.into());
        }
        self.configured |= configures;
        done()
    }

    pub(crate) fn after_start(&self, point: &str) -> Told {
        if let Some(words) = self.faults.meet(point) {
            return Err(words);
        }
        if self.life == Life::NotStarted { Err(TOO_EARLY.into()) } else { done() }
    }
}

pub(crate) fn done() -> Told {
    Ok(String::new())
}

/// The id of a resource, from its path.
fn named(id: Option<&str>) -> Result<&str, String> {
    match id {
        None | Some("") => Err("The ID cannot be empty.".into()),
        Some(id) if id.chars().all(|c| c == '_' || c.is_alphanumeric()) => Ok(id),
        Some(_) => {
            Err("API Resource IDs can only contain alphanumeric characters and underscores.".into())
        }
    }
}
