//! Against a real QEMU, without a guest: the firmware runs and finds nothing to boot.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};

use super::super::version::QEMU;
use super::*;
use crate::model::chain;

const OP: OpId = OpId([1; 16]);

/// `None` where QEMU is not installed.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn start_qemu(socket: &Path, more: &[&str]) -> Option<Child> {
    let Ok(binary) = QEMU.find(None) else {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
        return None;
    };
    let child = Command::new(binary)
        .args(["-M", "microvm,acpi=on", "-accel", "tcg", "-m", "64M", "-nodefaults"])
        .args(["-no-user-config", "-display", "none", "-qmp"])
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .args(more)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    Some(child.unwrap())
}

#[tokio::test]
async fn waits_for_the_socket_then_for_the_guest_then_presses_the_button() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("api.sock");
    // Begun before QEMU is there, on purpose.
    let waiting = tokio::spawn(await_running(OP, socket.clone()));
    let Some(mut qemu) = start_qemu(&socket, &[]) else { return };
    waiting.await.unwrap().unwrap();
    // Adoption asks again, any number of times.
    await_running(OP, socket.clone()).await.unwrap();
    power_button(OP, socket.clone()).await.unwrap();
    qemu.kill().await.unwrap();
    let error = power_button(OP, socket).await.unwrap_err();
    assert!(chain(&error).contains("press the power button"), "{error:?}");
}

#[tokio::test]
async fn a_guest_that_is_not_started_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("api.sock");
    let Some(mut qemu) = start_qemu(&socket, &["-S"]) else { return };
    let waiting = timeout(Duration::from_millis(300), await_running(OP, socket.clone())).await;
    assert!(waiting.is_err(), "prelaunch is not running: {waiting:?}");
    let mut session = negotiate(connect_when_there(&socket).await.unwrap()).await.unwrap();
    execute(&mut session, qmp::cont {}).await.unwrap();
    drop(session);
    await_running(OP, socket).await.unwrap();
    qemu.kill().await.unwrap();
}

#[tokio::test]
async fn a_guest_is_paused() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("api.sock");
    let Some(mut qemu) = start_qemu(&socket, &[]) else { return };
    await_running(OP, socket.clone()).await.unwrap();
    let status = async || {
        let mut session = negotiate(UnixStream::connect(&socket).await.unwrap()).await.unwrap();
        execute(&mut session, qmp::query_status {}).await.unwrap().status
    };
    for _ in 0..2 {
        pause(OP, socket.clone()).await.unwrap();
        assert_eq!(status().await, qmp::RunState::paused);
    }
    qemu.kill().await.unwrap();
    let error = pause(OP, socket).await.unwrap_err();
    assert!(chain(&error).contains("pause the guest at"), "{error:?}");
}

#[tokio::test]
async fn a_socket_that_does_not_speak_qmp_is_an_error() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"SSH-2.0-nonsense\r\n").await.unwrap();
        let _end = peer.read_u8().await;
    });
    let error = await_running(OP, socket).await.unwrap_err();
    assert_eq!(error.code, Code::Host);
    server.abort();
}
