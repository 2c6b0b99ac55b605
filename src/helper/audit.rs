//! One JSON line per request, in the audit log: who asked for what, the verdict and the cost.
//!
//! The file is the helper's alone; it is capped, `.1` holds what came before. A line that cannot
//! be written is said on stderr and does not fail the request: the daemon must be able to stop
//! VMs on a full disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use nix::libc;
use serde::Serialize;

const MAX_BYTES: u64 = 8 << 20;

#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    owner_gid: u32,
    max_bytes: u64,
    file: Mutex<Option<File>>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    pub unix_ms: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op_id: String,
    pub peer_uid: u32,
    pub peer_pid: i32,
    pub request: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// `ok`, `denied`, `failed`, `malformed`; `silent` if nothing was asked.
    pub verdict: &'static str,
    pub elapsed_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Audit {
    pub fn open(path: &Path, owner_gid: u32) -> std::io::Result<Self> {
        Self::with_cap(path, owner_gid, MAX_BYTES)
    }

    fn with_cap(path: &Path, owner_gid: u32, max_bytes: u64) -> std::io::Result<Self> {
        let file = open(path, owner_gid)?;
        Ok(Self { path: path.to_owned(), owner_gid, max_bytes, file: Mutex::new(Some(file)) })
    }

    pub fn write(&self, line: &Line) {
        let mut text = match serde_json::to_vec(line) {
            Ok(text) => text,
            Err(error) => return tracing::error!(%error, "audit line cannot be written"),
        };
        text.push(b'\n');
        if let Err(error) = self.append(&text) {
            tracing::error!(%error, path = %self.path.display(), "audit log cannot be written");
        }
        let Line { op_id, peer_uid, request, object, verdict, elapsed_us, error, .. } = line;
        let error = error.as_deref().unwrap_or_default();
        match *verdict {
            "ok" => tracing::info!(%op_id, request, %object, elapsed_us, "done"),
            "silent" => tracing::debug!(peer_uid, elapsed_us, %error, "nothing was asked"),
            verdict => {
                tracing::warn!(%op_id, peer_uid, request, %object, elapsed_us, verdict, %error);
            }
        }
    }

    fn append(&self, text: &[u8]) -> std::io::Result<()> {
        let mut slot = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let full = |file: &File| file.metadata().is_ok_and(|meta| meta.len() >= self.max_bytes);
        if slot.as_ref().is_some_and(full) {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, &old)?;
            *slot = None;
        }
        let file = match &mut *slot {
            Some(file) => file,
            none => none.insert(open(&self.path, self.owner_gid)?),
        };
        // One write: lines of two helpers never mix.
        file.write_all(text)
    }
}

/// The owner may read what was done in its name, and nothing else.
fn open(path: &Path, owner_gid: u32) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::fchown(&file, None, Some(owner_gid))?;
    }
    Ok(file)
}

/// Milliseconds since the epoch.
pub(super) fn unix_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the helper has no clock port; for logs only")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_the_file_is_capped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper.jsonl");
        let gid = nix::unistd::getgid().as_raw();
        let audit = Audit::with_cap(&path, gid, 300).unwrap();
        for n in 0..10 {
            let object = format!("tap{n}\n\"");
            audit.write(&Line { request: "ensure-tap", object, verdict: "ok", ..Line::default() });
        }
        let old = dir.path().join("helper.jsonl.1");
        for file in [&path, &old] {
            let text = std::fs::read_to_string(file).unwrap();
            assert!(!text.is_empty() && text.len() < 600);
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["request"], "ensure-tap");
            }
        }
        let last = std::fs::read_to_string(&path).unwrap();
        assert!(last.contains("tap9\\n"), "{last}");
    }

    #[test]
    fn a_link_in_the_logs_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "").unwrap();
        let path = dir.path().join("helper.jsonl");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(Audit::open(&path, 0).is_err());
    }
}
