//! Against a real QEMU, without a guest: the firmware runs and finds nothing to boot.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::super::qmp;
use super::super::version::QEMU;
use super::*;
use crate::model::{VmId, chain};

const OP: OpId = OpId([1; 16]);

fn host() -> (TempDir, VmPaths) {
    let dir = TempDir::new().unwrap();
    let paths = VmPaths::new(&dir.path().join("vms"), dir.path(), VmId([2; 16]));
    std::fs::create_dir(&paths.run).unwrap();
    std::fs::create_dir_all(paths.saving().dir).unwrap();
    std::fs::write(paths.saving().memory, "").unwrap();
    (dir, paths)
}

/// `None` where QEMU is not installed. In the sandbox that guests' VMMs run in.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn start_qemu(paths: &VmPaths, more: &[&str]) -> Option<Child> {
    let Ok(binary) = QEMU.find(None) else {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
        return None;
    };
    drop(std::fs::remove_file(paths.api_socket()));
    let child = Command::new(binary)
        .args(["-M", "microvm,acpi=on", "-accel", "tcg", "-m", "64M", "-nodefaults"])
        .args(["-no-user-config", "-display", "none", "-sandbox"])
        .arg("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", paths.api_socket().display()))
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    Some(child.unwrap())
}

async fn status(paths: &VmPaths) -> String {
    let mut qemu = connect(&paths.api_socket()).await.unwrap();
    state(&mut qemu, "query-status").await.unwrap()
}

#[tokio::test]
async fn memory_goes_out_and_comes_back() {
    let (_dir, paths) = host();
    let Some(mut first) = start_qemu(&paths, &[]) else { return };
    qmp::await_running(OP, paths.api_socket()).await.unwrap();
    // A suspend that was taken back, and one that was not.
    for _ in 0..2 {
        let by = save(OP, &paths).await.unwrap();
        assert_eq!((by.kind, by.accelerator.as_str()), (VmmKind::Qemu, "tcg"));
        assert_eq!(status(&paths).await, "postmigrate", "it stands still");
        let length = std::fs::metadata(paths.saving().memory).unwrap().len();
        assert!((1..8 << 20).contains(&length), "64 MiB of almost nothing took {length} bytes");
        unpause(OP, &paths).await.unwrap();
        assert_eq!(status(&paths).await, "running");
    }
    save(OP, &paths).await.unwrap();
    std::fs::rename(paths.saving().dir, paths.saved().dir).unwrap();
    first.kill().await.unwrap();
    let Some(mut second) = start_qemu(&paths, &["-S", "-incoming", "defer"]) else { return };
    for _ in 0..2 {
        load(OP, &paths).await.unwrap();
        assert_eq!(status(&paths).await, "paused", "until it is let go on");
    }
    std::fs::remove_dir_all(paths.saved().dir).unwrap();
    unpause(OP, &paths).await.unwrap();
    assert_eq!(status(&paths).await, "running");
    second.kill().await.unwrap();
}

#[tokio::test]
async fn half_a_memory_ends_the_vmm_and_is_an_error() {
    let (_dir, paths) = host();
    let Some(mut first) = start_qemu(&paths, &[]) else { return };
    qmp::await_running(OP, paths.api_socket()).await.unwrap();
    save(OP, &paths).await.unwrap();
    first.kill().await.unwrap();
    std::fs::rename(paths.saving().dir, paths.saved().dir).unwrap();
    let memory = std::fs::read(paths.saved().memory).unwrap();
    std::fs::write(paths.saved().memory, &memory[..memory.len() / 2]).unwrap();
    let Some(mut second) = start_qemu(&paths, &["-S", "-incoming", "defer"]) else { return };
    let error = load(OP, &paths).await.unwrap_err();
    assert!(chain(&error).starts_with("load memory by QEMU at"), "{error:?}");
    assert!(!second.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let (_dir, paths) = host();
    std::fs::remove_file(paths.saving().memory).unwrap();
    let error = save(OP, &paths).await.unwrap_err();
    assert!(error.object.ends_with("saving/memory"), "{error:?}");
}
