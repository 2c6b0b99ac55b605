//! QEMU's guest agent: commands in the host without its network, keys or login.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::channel::Channel;

/// A lost question is asked again after this; an emulated host answers within a second.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    channel: Option<Channel>,
    syncs: u64,
}

impl Agent {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, channel: None, syncs: 0 }
    }

    /// One attempt to be understood. An answer to what somebody else asked earlier may lie in the
    /// port, so a new connection begins by asking for a number.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        if self.channel.is_some() {
            return Ok(());
        }
        let mut channel = Channel::connect(&self.path)?;
        self.syncs += 1;
        let id = u64::from(std::process::id()) * 1000 + self.syncs;
        let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
        channel.send(b"\xff")?;
        channel.send(format!("{sync}\n").as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        while channel.receive(deadline)?["return"] != id {}
        self.channel = Some(channel);
        Ok(())
    }

    /// Asked once: a command of unknown fate must not be run twice.
    pub(crate) fn call(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let mut ask = || {
            self.greet()?;
            let channel = self.channel.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
            channel.send(line.as_bytes())?;
            channel.receive(Instant::now() + 12 * PATIENCE)
        };
        let answer = ask().map_err(|error| {
            self.channel = None;
            format!("{command}: {error}")
        })?;
        answer.get("return").cloned().ok_or_else(|| format!("{command}: {answer}"))
    }

    /// The port must be seen closed in a state that is saved.
    pub(crate) fn hang_up(&mut self) {
        self.channel = None;
    }
}
