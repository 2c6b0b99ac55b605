//! The two ways into a guest: its lane, if it is free, and SSH.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use banger_agent::contract::exec::ExecRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::forward::Forwards;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::host::guest::Lane;
use crate::host::guest::ssh::{
    Control, ExecSpec, ExitKind, GuestError, GuestIo, GuestSsh, Program, SshEndpoint, SshTarget,
};
use crate::model::OpId;
use crate::wire::reply::EndpointInfo;

/// The agent serves before the VM counts as running: what takes longer will not come.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Who commands are, unless told.
pub(crate) const ROOT: &str = "root";

#[derive(Debug)]
pub(super) enum Way {
    Lane(Lane),
    Ssh(GuestSsh),
}

impl Way {
    /// By the lane, if it can be had, for one plain command of root's; by SSH for all else.
    pub(super) async fn go(
        client: &mut Client,
        op: OpId,
        endpoint: EndpointInfo,
        user: &str,
        plain: bool,
        forwards: Forwards,
    ) -> Result<Self, CliError> {
        let target = target(&endpoint)?;
        if plain && let Some(lane) = Self::lane(client, op, &endpoint.vm_id, &target).await {
            return Ok(lane);
        }
        let EndpointInfo { name, host_key, client_private, .. } = endpoint;
        let endpoint = SshEndpoint { target, host_key, client_private, user: user.to_owned() };
        let connected = GuestSsh::connect_both_ways(&endpoint, CONNECT_LIMIT).await;
        let (ssh, from_guest) = connected.map_err(|error| explain(&name, &error))?;
        if !forwards.is_empty() {
            forwards.begin(&ssh, from_guest, &name).await?;
        }
        Ok(Self::Ssh(ssh))
    }

    /// The daemon is asked where a lane is that is no port of the vsock that it has named already.
    pub(super) async fn lane(
        client: &mut Client,
        op: OpId,
        vm_id: &str,
        target: &SshTarget,
    ) -> Option<Self> {
        let lane = match target {
            SshTarget::Vsock(socket, _) => Lane::dial(socket).await,
            _ => match client.lane(op, vm_id).await {
                Ok(socket) => Lane::take(&socket).await,
                Err(error) => Err(std::io::Error::other(error.message)),
            },
        };
        match lane {
            Ok(lane) => Some(Self::Lane(lane)),
            Err(why) => {
                tracing::debug!(op_id = %op, %why, "the lane is not to be had");
                None
            }
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
                ExecSpec {
                    program: Program::Argv { argv, cwd },
                    env,
                    op_id,
                    tty: None,
                    agent: false,
                },
            ) => {
                let request = ExecRequest { argv, env, cwd, op_id: op_id.0 };
                lane.exec(&request, io, controls).await
            }
            (Self::Lane(_), _) => Err(GuestError::RequestRefused { what: "run this on the lane" }),
        }
    }
}

pub(super) fn target(endpoint: &EndpointInfo) -> Result<SshTarget, CliError> {
    let EndpointInfo { name, address, port, .. } = endpoint;
    match address.parse::<IpAddr>() {
        Ok(address) => Ok(SshTarget::Tcp(SocketAddr::new(address, *port))),
        Err(_) if address.starts_with('/') => Ok(match port {
            0 => SshTarget::Unix(PathBuf::from(address)),
            port => SshTarget::Vsock(PathBuf::from(address), u32::from(*port)),
        }),
        Err(_) => Err(CliError::failed(format!("{name}: no address: {address:?}"))),
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
        GuestError::AuthRefused { user, .. } if user != ROOT => {
            failure.hint(format!("is there such a user? banger vm exec {name} -- id {user}"))
        }
        GuestError::HostKeyMismatch { .. } => {
            failure.hint("another machine has the guest's address: banger doctor")
        }
        _ => failure,
    }
}
