//! A guest's memory to a file and back, by QEMU's migration.
//!
//! The file is given as a descriptor: QEMU runs in a sandbox that may start no shell, which is how
//! its older versions would write to a path. Pages of zeros are not written, so the file is as
//! large as what the guest has used.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::monitor::Monitor;
use crate::host::vmm::socket::connect_when_there;
use crate::model::{Code, OpId, SavedBy, VmmKind};
use crate::ports::{HostError, VmPaths};

/// For one answer; only the end of the migration is waited for without a limit of its own.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at how a migration stands.
const LOOK: Duration = Duration::from_millis(10);
/// In bytes a second. The default, made for networks, is 128 MiB.
const BANDWIDTH: u64 = 1 << 40;
const NAME: &str = "memory";

pub(super) async fn save(op: OpId, paths: &VmPaths) -> Result<SavedBy, HostError> {
    let (what, socket) = ("save memory by QEMU at", paths.api_socket());
    let target = paths.saving().memory;
    let file = File::options().write(true).truncate(true).open(&target);
    let file = file.map_err(|error| HostError::io("open", target.display().to_string(), error))?;
    let failed = |error| HostError::io(what, socket.display().to_string(), error);
    let mut qemu = connect(&socket).await.map_err(failed)?;
    limited(async {
        qemu.execute("stop", json!({})).await?;
        end_migration(&mut qemu).await?;
        qemu.execute("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH })).await?;
        qemu.give(NAME, &file).await?;
        qemu.execute("migrate", json!({ "uri": format!("fd:{NAME}") })).await
    })
    .await
    .map_err(failed)?;
    written(&mut qemu).await.map_err(failed)?;
    let kvm = limited(qemu.execute("query-kvm", json!({}))).await.map_err(failed)?;
    let accelerator = if kvm["enabled"] == json!(true) { "kvm" } else { "tcg" };
    tracing::debug!(op_id = %op, socket = %socket.display(), "memory written");
    let (version, accelerator) = (qemu.version, accelerator.to_owned());
    Ok(SavedBy { kind: VmmKind::Qemu, version, accelerator })
}

/// Ends when the memory is read and the guest stands where it stood. Asked again, it waits for the
/// end of the first time. How long is the caller's to decide.
pub(super) async fn load(op: OpId, paths: &VmPaths) -> Result<(), HostError> {
    let (what, socket) = ("load memory by QEMU at", paths.api_socket());
    let source = paths.saved().memory;
    let failed = |error| HostError::io(what, socket.display().to_string(), error);
    let stream = connect_when_there(&socket).await?;
    let mut qemu = limited(Monitor::open(stream)).await.map_err(failed)?;
    if state(&mut qemu, "query-status").await.map_err(failed)? == "inmigrate"
        && state(&mut qemu, "query-migrate").await.map_err(failed)?.is_empty()
    {
        let file = File::open(&source);
        let file =
            file.map_err(|error| HostError::io("open", source.display().to_string(), error))?;
        limited(async {
            qemu.give(NAME, &file).await?;
            qemu.execute("migrate-incoming", json!({ "uri": format!("fd:{NAME}") })).await
        })
        .await
        .map_err(failed)?;
    }
    loop {
        match state(&mut qemu, "query-status").await.map_err(failed)?.as_str() {
            "inmigrate" => sleep(LOOK).await,
            "paused" => break,
            other => {
                return Err(HostError::new(Code::Host, what, socket.display().to_string())
                    .because(format!("the guest is {other} after its memory was read")));
            }
        }
    }
    tracing::debug!(op_id = %op, socket = %socket.display(), "memory read");
    Ok(())
}

/// Lets the guest go on; a migration under way is ended first, for it would go on beside it.
pub(super) async fn unpause(op: OpId, paths: &VmPaths) -> Result<(), HostError> {
    let (what, socket) = ("let the guest go on at", paths.api_socket());
    let failed = |error| HostError::io(what, socket.display().to_string(), error);
    let mut qemu = connect(&socket).await.map_err(failed)?;
    limited(async {
        end_migration(&mut qemu).await?;
        qemu.execute("cont", json!({})).await
    })
    .await
    .map_err(failed)?;
    tracing::debug!(op_id = %op, socket = %socket.display(), "the guest goes on");
    Ok(())
}

async fn connect(socket: &Path) -> io::Result<Monitor> {
    limited(async { Monitor::open(UnixStream::connect(socket).await?).await }).await
}

/// The `status` of an answer, empty where there is none.
async fn state(qemu: &mut Monitor, question: &str) -> io::Result<String> {
    let answer = limited(qemu.execute(question, json!({}))).await?;
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

async fn end_migration(qemu: &mut Monitor) -> io::Result<()> {
    loop {
        match state(qemu, "query-migrate").await?.as_str() {
            "" | "none" | "completed" | "failed" | "cancelled" => return Ok(()),
            _ => {
                qemu.execute("migrate_cancel", json!({})).await?;
                sleep(LOOK).await;
            }
        }
    }
}

async fn written(qemu: &mut Monitor) -> io::Result<()> {
    loop {
        let answer = limited(qemu.execute("query-migrate", json!({}))).await?;
        match answer["status"].as_str().unwrap_or_default() {
            "completed" => return Ok(()),
            "failed" | "cancelled" | "cancelling" => {
                let why = answer["error-desc"].as_str().unwrap_or("QEMU does not say why");
                return Err(io::Error::other(format!("the memory was not written: {why}")));
            }
            _ => sleep(LOOK).await,
        }
    }
}

async fn limited<T>(conversation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(LIMIT, conversation).await {
        Ok(answer) => answer,
        Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
