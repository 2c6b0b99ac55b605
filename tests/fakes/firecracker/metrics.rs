//! Metrics: one line of JSON a flush, each counter as what came since the flush before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::machine::Machine;

const PERIOD: Duration = Duration::from_secs(60);

/// Shared by all who count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    since: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Metrics {
    /// False when there is a file already: one is all a process takes.
    pub(crate) fn open(&self, path: &Path) -> std::io::Result<bool> {
        let mut inner = self.0.lock().unwrap();
        if inner.file.is_some() {
            return Ok(false);
        }
        // As the real one: no append, no truncation.
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        inner.file = Some(open?);
        Ok(true)
    }

    pub(crate) fn add(&self, group: &str, key: &'static str, count: u64) {
        let mut inner = self.0.lock().unwrap();
        *inner.since.entry(group.to_owned()).or_default().entry(key).or_default() += count;
    }

    pub(crate) fn flush(&self) {
        let mut inner = self.0.lock().unwrap();
        let mut line = Map::new();
        line.insert("utc_timestamp_ms".into(), json!(now_ms()));
        line.insert("seccomp".into(), json!({ "num_faults": 0 }));
        for (group, counts) in &mut inner.since {
            line.insert(group.clone(), json!(counts));
            counts.values_mut().for_each(|count| *count = 0);
        }
        let text = format!("{}\n", Value::Object(line));
        if let Some(file) = &mut inner.file {
            file.write_all(text.as_bytes()).expect("metrics are written");
        }
    }

    /// As a process ends: with its last metrics.
    pub(crate) fn exit(&self, code: i32) -> ! {
        self.flush();
        std::process::exit(code);
    }
}

pub(crate) fn flush_every_minute(machine: &Arc<Mutex<Machine>>) {
    let machine = Arc::clone(machine);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PERIOD);
            machine.lock().unwrap().flush_if_running();
        }
    });
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the end of time")
}
