//! A scenario: a script that runs as root in a host of its own, and must end well.
//!
//! One that ends with [`REBOOT`] or [`POWER_CUT`] has the host restarted and is called again there, with
//! the number of the call in `$phase`. What one call is to tell the next lies on the disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::machine::{BootEnd, Machine, QEMU, last_lines};
use crate::payload::{self, Payload};
use crate::state::Saved;

/// What every script begins with.
const PRELUDE: &str = include_str!("scenarios/prelude.sh");
/// Exit codes of a script that goes on after the host was restarted.
const REBOOT: i64 = 100;
const POWER_CUT: i64 = 101;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// A host that has just booted.
    Booted,
    /// A host on which banger is installed and runs.
    Installed,
}

/// What runs, where, and how long at most.
#[derive(Debug)]
pub(crate) struct Scenario {
    start: Start,
    script: String,
    /// Laid in `/opt/files` before.
    files: Vec<PathBuf>,
    needs_firecracker: bool,
    limit: Duration,
}

impl Scenario {
    pub(crate) fn new(start: Start, script: &str, limit: Duration) -> Self {
        let script = format!("{PRELUDE}\n{script}");
        Self { start, script, files: vec![], needs_firecracker: false, limit }
    }

    /// With the VMM that the script is to use.
    pub(crate) fn on(mut self, vmm: &str) -> Self {
        self.script = format!("vmm={vmm}\n{}", self.script);
        if vmm == "firecracker" { self.where_firecracker_is() } else { self }
    }

    /// Only where Firecracker is named, and so installed.
    pub(crate) fn where_firecracker_is(mut self) -> Self {
        self.needs_firecracker = true;
        self
    }

    /// With files that are no part of an installation.
    pub(crate) fn bring(mut self, files: Vec<PathBuf>) -> Self {
        self.files = files;
        self
    }

    /// Or says in a line why it cannot be run.
    pub(crate) fn run(self) {
        let begun = Instant::now();
        let named = if self.needs_firecracker { payload::firecracker() } else { Ok(()) };
        let saved = match named.and_then(|()| saved(self.start)) {
            Ok(saved) => saved,
            Err(missing) => return eprintln!("skipped: {missing}"),
        };
        let found = begun.elapsed();
        let mut host = saved.restore();
        eprintln!("the state was there after {found:.1?}, the host after {:.1?}", begun.elapsed());
        if !self.files.is_empty() {
            host.bring_in(&Payload::files(&self.files));
        }
        for phase in 1.. {
            match self.call(&mut host, phase) {
                0 => return,
                REBOOT => host.restart(BootEnd::Orderly),
                POWER_CUT => host.restart(BootEnd::PowerCut),
                code => unreachable!("{code} was told"),
            }
        }
    }

    /// With which of the codes that are no failure it ends.
    fn call(&self, host: &mut Machine, phase: u32) -> i64 {
        let script = format!("phase={phase}\n{}", self.script);
        let begun = Instant::now();
        let ended = host.run_unit("scenario", &script, self.limit);
        if ![0, REBOOT, POWER_CUT].contains(&ended.code) {
            let late = if begun.elapsed() < self.limit { "" } else { ", ended at its limit" };
            let journal = last_lines(&host.journal(), 80);
            panic!("exit code {}{late}\n--- journal ---\n{journal}", ended.code);
        }
        ended.code
    }
}

fn saved(start: Start) -> Result<Saved, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the test host's image is built as root".to_owned());
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err("the test host is an x86-64 machine".to_owned());
    }
    for program in [QEMU, "qemu-img", "mmdebstrap", "mke2fs", "setpriv"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(format!("{program} is not installed"));
        }
    }
    Ok(match start {
        Start::Booted => Saved::booted(),
        Start::Installed => Saved::installed(&Payload::find()?),
    })
}
