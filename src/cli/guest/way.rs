//! The two ways into a guest: its lane, if it is free, and SSH.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_agent::contract::exec::ExecRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::cli::error::CliError;
use crate::host::guest::Lane;
use crate::host::guest::ssh::{
    Control, ExecSpec, ExitKind, GuestError, GuestIo, GuestSsh, Program, SshEndpoint, SshTarget,
};
use crate::wire::reply::EndpointInfo;

/// The agent serves before the VM counts as running: what takes longer will not come.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Way {
    Lane(Lane),
    Ssh(GuestSsh),
}

impl Way {
    /// By the lane, if it can be had, for one plain command.
    pub(super) async fn by_lane(socket: &Path, otherwise: EndpointInfo) -> Result<Self, CliError> {
        match Lane::take(socket).await {
            Ok(lane) => Ok(Self::Lane(lane)),
            Err(why) => {
                tracing::debug!(%why, "the lane is not to be had");
                Self::by_ssh(otherwise).await
            }
        }
    }

    pub(super) async fn by_ssh(endpoint: EndpointInfo) -> Result<Self, CliError> {
        let EndpointInfo { name, address, port, host_key, client_private, .. } = endpoint;
        let target = match address.parse::<IpAddr>() {
            Ok(address) => SshTarget::Tcp(SocketAddr::new(address, port)),
            Err(_) if address.starts_with('/') => match port {
                0 => SshTarget::Unix(PathBuf::from(address)),
                port => SshTarget::Vsock(PathBuf::from(address), u32::from(port)),
            },
            Err(_) => return Err(CliError::failed(format!("{name}: no address: {address:?}"))),
        };
        let endpoint = SshEndpoint { target, host_key, client_private, user: "root".to_owned() };
        match GuestSsh::connect(&endpoint, CONNECT_LIMIT).await {
            Ok(ssh) => Ok(Self::Ssh(ssh)),
            Err(error) => Err(explain(&name, &error)),
        }
    }

    pub(super) async fn exec<I, O, E>(
        &mut self,
        spec: ExecSpec,
        io: GuestIo<I, O, E>,
        controls: mpsc::Receiver<Control>,
    ) -> Result<ExitKind, GuestError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        match (self, spec) {
            (Self::Ssh(ssh), spec) => ssh.exec(spec, io, controls).await,
            (
                Self::Lane(lane),
                ExecSpec { program: Program::Argv { argv, cwd }, env, op_id, tty: None },
            ) => {
                let request = ExecRequest { argv, env, cwd, op_id: op_id.0 };
                lane.exec(&request, io, controls).await
            }
            (Self::Lane(_), _) => Err(GuestError::RequestRefused { what: "run this on the lane" }),
        }
    }
}

pub(super) fn explain(name: &str, error: &GuestError) -> CliError {
    let failure = CliError::from_error(name, error);
    match error {
        GuestError::Unreachable { .. } | GuestError::Lost { .. } | GuestError::Handshake { .. } => {
            failure
                .hint(format!("does it still run? banger vm show {name}"))
                .hint(format!("what does its console say? banger vm logs {name}"))
        }
        GuestError::HostKeyMismatch { .. } => {
            failure.hint("another machine has the guest's address: banger doctor")
        }
        _ => failure,
    }
}
