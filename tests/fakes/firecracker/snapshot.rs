//! Snapshots: a state file with everything that was configured, and a memory file of the guest's
//! size. The real one writes the memory in full; here it is a hole.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::SNAPSHOT_VERSION;
use crate::bodies::{BootSource, Drive, MachineConfig, Network, SnapshotLoad, Vsock};

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct State {
    format: String,
    pub(crate) boot: BootSource,
    pub(crate) machine: MachineConfig,
    pub(crate) drives: Vec<Drive>,
    pub(crate) networks: Vec<Network>,
    pub(crate) vsock: Option<Vsock>,
    /// Of the guest that goes on.
    pub(crate) boot_id: Option<String>,
}

impl State {
    pub(crate) fn new(
        boot: BootSource,
        machine: MachineConfig,
        drives: Vec<Drive>,
        networks: Vec<Network>,
        vsock: Option<Vsock>,
        boot_id: Option<String>,
    ) -> Self {
        Self {
            format: SNAPSHOT_VERSION.to_owned(),
            boot,
            machine,
            drives,
            networks,
            vsock,
            boot_id,
        }
    }

    fn memory_bytes(&self) -> u64 {
        u64::try_from(self.machine.mem_size_mib).expect("a size") << 20
    }

    pub(crate) fn write(&self, state: &Path, memory: &Path) -> Result<(), String> {
        let failed = |what: &str, error: std::io::Error| {
            format!("Create snapshot error: Cannot perform open on the {what} file: {error}")
        };
        let file = File::create(state).map_err(|error| failed("snapshot backing", error))?;
        serde_json::to_writer(&file, self).expect("the state is written");
        file.sync_all().expect("the state is synced");
        let memory = File::create(memory).map_err(|error| failed("memory backing", error))?;
        memory.set_len(self.memory_bytes()).map_err(|error| failed("memory backing", error))
    }

    /// Whatever does not fit ends the process; the words are for before.
    pub(crate) fn read(load: &SnapshotLoad) -> Result<Self, String> {
        let failed =
            |why: String| format!("Load snapshot error: Failed to restore from snapshot: {why}");
        let from_file =
            |why: String| failed(format!("Failed to get snapshot state from file: {why}"));
        let text = std::fs::read(&load.snapshot_path)
            .map_err(|error| from_file(format!("Failed to open snapshot file: {error}")))?;
        let state: Self = serde_json::from_slice(&text).map_err(|error| {
            from_file(format!("Failed to load snapshot state from file: {error}"))
        })?;
        if state.format != SNAPSHOT_VERSION {
            let why = format!("Invalid data version: {}", state.format);
            return Err(from_file(format!("Failed to load snapshot state from file: {why}")));
        }
        let memory = |why: String| {
            failed(format!(
                "Failed to load guest memory: Error creating guest memory from file: Failed to load guest memory: {why}"
            ))
        };
        let size = std::fs::metadata(&load.mem_backend.backend_path);
        let size = size.map_err(|error| memory(error.to_string()))?.len();
        if size != state.memory_bytes() {
            return Err(memory(format!("{size} bytes, {} expected", state.memory_bytes())));
        }
        if load.clock_realtime {
            return Err(failed(
                "Failed to build microVM from snapshot: clock_realtime requested but not present \
                 in the snapshot state"
                    .into(),
            ));
        }
        Ok(state)
    }
}
