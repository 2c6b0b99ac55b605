//! QMP, QEMU's own protocol, over the API socket.
//!
//! QEMU serves one connection at a time and lets the next one wait, so each call here connects,
//! says what it has to, and leaves. Nothing is kept that a restart of the daemon would lose.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qapi::futures::{QapiStream, QmpStreamTokio};
use qapi::qmp;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::host::vmm::socket::{RETRY, connect_when_there};
use crate::model::{Code, OpId};
use crate::ports::HostError;

type Session =
    QapiStream<QmpStreamTokio<ReadHalf<UnixStream>>, QmpStreamTokio<WriteHalf<UnixStream>>>;

/// A QEMU that lives answers within a millisecond, unless its main loop hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// Waits for the socket too; how long is the caller's to decide.
pub(super) async fn await_running(op: OpId, socket: PathBuf) -> Result<(), HostError> {
    let what = "wait for QEMU at";
    loop {
        let stream = connect_when_there(&socket).await?;
        // It listens before its main loop runs, which on a busy host may be much later.
        let asked = async {
            let mut session = negotiate(stream).await?;
            execute(&mut session, qmp::query_status {}).await
        };
        let status = asked
            .await
            .map_err(|error| HostError::io(what, socket.display().to_string(), error))?;
        match status.status {
            qmp::RunState::running => {
                tracing::debug!(op_id = %op, socket = %socket.display(), "the guest runs");
                return Ok(());
            }
            qmp::RunState::prelaunch | qmp::RunState::inmigrate => sleep(RETRY).await,
            // Paused on an error of its disk, for instance: it will not run by itself.
            other => {
                return Err(HostError::new(Code::Host, what, socket.display().to_string())
                    .because(format!("the guest does not run: {other:?}")));
            }
        }
    }
}

pub(super) async fn power_button(op: OpId, socket: PathBuf) -> Result<(), HostError> {
    once(op, "press the power button at", &socket, qmp::system_powerdown {}).await.map(drop)
}

pub(super) async fn pause(op: OpId, socket: PathBuf) -> Result<(), HostError> {
    once(op, "pause the guest at", &socket, qmp::stop {}).await.map(drop)
}

/// QEMU stops a guest whose write the host has no room for, and does it again when the guest goes on.
pub(super) async fn is_halted_by_disk(op: OpId, socket: PathBuf) -> Result<bool, HostError> {
    let status = once(op, "ask the state of the guest at", &socket, qmp::query_status {}).await?;
    Ok(status.status == qmp::RunState::io_error)
}

/// One command to a QEMU that is there.
async fn once<C: qapi::Command>(
    op: OpId,
    operation: &'static str,
    socket: &Path,
    command: C,
) -> Result<C::Ok, HostError>
where
    QmpStreamTokio<WriteHalf<UnixStream>>:
        futures::Sink<qapi::Execute<C, u32>, Error = io::Error> + Unpin,
{
    let answer = failing(operation, socket, async {
        let mut session = negotiate(UnixStream::connect(socket).await?).await?;
        execute(&mut session, command).await
    })
    .await?;
    tracing::debug!(op_id = %op, socket = %socket.display(), command = C::NAME, "told");
    Ok(answer)
}

async fn negotiate(stream: UnixStream) -> io::Result<Session> {
    let (read, write) = tokio::io::split(stream);
    QmpStreamTokio::open_split(read, write).await?.negotiate().await
}

async fn execute<C: qapi::Command>(session: &mut Session, command: C) -> io::Result<C::Ok>
where
    QmpStreamTokio<WriteHalf<UnixStream>>:
        futures::Sink<qapi::Execute<C, u32>, Error = io::Error> + Unpin,
{
    session.execute(command).await.map_err(io::Error::from)
}

/// Gives a conversation its time limit and its errors their object.
async fn failing<T>(
    operation: &'static str,
    socket: &Path,
    conversation: impl Future<Output = io::Result<T>>,
) -> Result<T, HostError> {
    let object = socket.display().to_string();
    match timeout(LIMIT, conversation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(HostError::io(operation, object, error)),
        Err(_) => Err(HostError::new(Code::Deadline, operation, object)
            .because("QEMU takes connections but does not answer")),
    }
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
