//! An SSH connection that is somebody else's: its bytes go through this process to the guest's
//! server, by the network or the VMM's own way. Where neither leads there, the agent makes the
//! connection from inside the guest, over the lane.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use banger_agent::contract::exec::AGENT;
use tokio::sync::mpsc;

use super::way::{self, Way};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::host::guest::ssh::{self, ExecSpec, ExitKind, GuestError, GuestIo, Program};
use crate::model::OpId;
use crate::wire::reply::EndpointInfo;

const BUFFER: usize = 128 << 10;

/// Ends with the connection.
pub(crate) async fn carry(
    client: &mut Client,
    op: OpId,
    endpoint: EndpointInfo,
) -> Result<Exit, CliError> {
    let name = endpoint.name.clone();
    let target = way::target(&endpoint)?;
    let direct = match ssh::stream(&target, way::CONNECT_LIMIT).await {
        Ok(stream) => stream,
        Err(error @ GuestError::Unreachable { .. }) => {
            let Some(lane) = Way::lane(client, op, &endpoint.vm_id, &target).await else {
                return Err(way::explain(&name, &error));
            };
            tracing::debug!(op_id = %op, error = %error, "going by the lane");
            return from_inside(lane, op).await.map_err(|error| way::explain(&name, &error));
        }
        Err(error) => return Err(way::explain(&name, &error)),
    };
    let pumped = tokio::task::spawn_blocking(move || pump(direct)).await;
    match pumped.unwrap_or_else(|error| Err(io::Error::other(error))) {
        // Whoever asked has gone, or the guest has: both know already.
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(CliError::from_error(format!("{name}: carry the connection"), &error)),
    }
}

async fn from_inside(mut lane: Way, op: OpId) -> Result<Exit, GuestError> {
    let argv = [AGENT, "dial"].map(str::to_owned).to_vec();
    let program = Program::Argv { argv, cwd: None };
    let spec = ExecSpec { program, env: vec![], op_id: op, tty: None, agent: false };
    let (stdin, _) = super::input::stdin(false).map_err(GuestError::Input)?;
    let io = GuestIo { stdin, stdout: tokio::io::stdout(), stderr: tokio::io::stderr() };
    match lane.exec(spec, io, mpsc::channel(1).1).await? {
        ExitKind::Code(0) => Ok(Exit::Ok),
        _ => Ok(Exit::Failed),
    }
}

/// A thread each way. By reading and writing: what the library's copy asks of the kernel instead
/// (splice) was seen to hang between ssh's pipe and a socket.
fn pump(guest: OwnedFd) -> io::Result<()> {
    let own = |fd: &dyn AsRawFd| -> io::Result<File> {
        // SAFETY: the descriptor is open for as long as this process, and is only copied.
        #[allow(unsafe_code, reason = "a copy of a standard stream, without its buffer")]
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        Ok(File::from(fd.try_clone_to_owned()?))
    };
    let (mut stdin, mut stdout) = (own(&io::stdin())?, own(&io::stdout())?);
    let (mut from, mut to) = (File::from(guest.try_clone()?), File::from(guest.try_clone()?));
    // Either kind of socket; only its end for sending is shut.
    let ends = UnixStream::from(guest);
    std::thread::Builder::new().name("to the guest".into()).spawn(move || {
        let sent = copy(&mut stdin, &mut to);
        drop(ends.shutdown(Shutdown::Write));
        sent
    })?;
    match copy(&mut from, &mut stdout) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied,
    }
}

fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
