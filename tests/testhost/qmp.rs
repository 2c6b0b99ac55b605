//! QEMU's own control channel.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::channel::Channel;

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Qmp {
    channel: Channel,
    /// Told while something else was waited for.
    events: Vec<String>,
}

impl Qmp {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let mut channel = Channel::connect(path)?;
        channel.receive(Instant::now() + LIMIT)?;
        let mut qmp = Self { channel, events: vec![] };
        qmp.call("qmp_capabilities", json!({})).map_err(io::Error::other)?;
        Ok(qmp)
    }

    pub(crate) fn call(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let failed = |error: io::Error| format!("{command}: {error}");
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.channel.send(line.as_bytes()).map_err(failed)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.channel.receive(deadline).map_err(failed)?;
            if let Some(error) = answer.get("error") {
                return Err(format!("{command}: {error}"));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            self.events.extend(answer["event"].as_str().map(str::to_owned));
        }
    }

    /// What was told up to the last call does not count any more.
    pub(crate) fn forget_events(&mut self) {
        self.events.clear();
    }

    /// Waits for an event of this name.
    pub(crate) fn await_event(&mut self, name: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|event| event == name) {
                self.events.drain(..=at);
                return Ok(());
            }
            let line = self.channel.receive(deadline).map_err(|e| format!("{name}: {e}"))?;
            self.events.extend(line["event"].as_str().map(str::to_owned));
        }
    }
}
