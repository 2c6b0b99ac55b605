//! Saved states: a host that has just booted, and one in which this checkout's banger is installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache::{Cache, Entry, key};
use crate::machine::{Machine, QEMU, last_lines, overlay};
use crate::payload::Payload;
use crate::{arguments, image};

/// To be raised when a state must be made anew though nothing that its key sees has changed.
const FORMAT: &str = "2";
const INSTALL: &str = include_str!("scenarios/install.sh");
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn memory(saved: &Path) -> PathBuf {
    saved.join("memory")
}

pub(crate) fn disk(saved: &Path) -> PathBuf {
    saved.join("disk.qcow2")
}

/// A state, kept as long as this lives.
#[derive(Debug)]
pub(crate) struct Saved {
    image: Entry,
    booted: Entry,
    installed: Option<Entry>,
}

impl Saved {
    pub(crate) fn booted() -> Self {
        let cache = Cache::open();
        Self::booted_in(&cache)
    }

    fn booted_in(cache: &Cache) -> Self {
        let image = image::get(cache);
        let version = Command::new(QEMU).arg("--version").output().unwrap().stdout;
        let names = ["run", "image", "disk"].map(Path::new);
        let arguments = arguments::arguments(names[0], names[1], names[2]).join("\n").into_bytes();
        let key = key([FORMAT.as_bytes(), &version, &arguments]);
        let booted = cache.entry(&image.dir, "booted", &key, |dir| {
            eprintln!("booting the test host, once: a minute");
            overlay(&image::disk(&image.dir), "raw", &disk(dir));
            Machine::boot(&image.dir, &disk(dir)).save(&memory(dir));
        });
        Self { image, booted, installed: None }
    }

    pub(crate) fn installed(payload: &Payload) -> Self {
        let cache = Cache::open();
        let below = Self::booted_in(&cache);
        let key = key([FORMAT, INSTALL, &payload.key()]);
        let installed = cache.entry(&below.booted.dir, "installed", &key, |dir| {
            eprintln!("installing banger in the test host, once for each build: a minute");
            let disk = disk(dir);
            let mut machine = Machine::restore(&below.image.dir, &below.booted.dir, Some(&disk));
            machine.bring_in(payload);
            let ended = machine.run_unit("install", INSTALL, INSTALL_LIMIT);
            let journal = machine.journal();
            assert_eq!(ended.code, 0, "installation failed\n{}", last_lines(&journal, 60));
            machine.save(&memory(dir));
        });
        Self { installed: Some(installed), ..below }
    }

    pub(crate) fn restore(&self) -> Machine {
        let saved = self.installed.as_ref().unwrap_or(&self.booted);
        Machine::restore(&self.image.dir, &saved.dir, None)
    }
}
