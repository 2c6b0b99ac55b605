//! QEMU's own control channel.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::channel::Channel;

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Qmp(Channel);

impl Qmp {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let mut channel = Channel::connect(path)?;
        channel.receive(Instant::now() + LIMIT)?;
        let mut qmp = Self(channel);
        qmp.call("qmp_capabilities", json!({})).map_err(io::Error::other)?;
        Ok(qmp)
    }

    pub(crate) fn call(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let failed = |error: io::Error| format!("{command}: {error}");
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.0.send(line.as_bytes()).map_err(failed)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.0.receive(deadline).map_err(failed)?;
            if let Some(error) = answer.get("error") {
                return Err(format!("{command}: {error}"));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            // Anything else is an event.
        }
    }
}
