//! What the commands of the system share: root, the installation, the daemon that is to answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::model::{OpId, chain};
use crate::setup::{Places, Record, SetupError, Systemd, UNITS, installed};
use crate::wire::helper::{
    Frames, HELPER, HelperBody, HelperOk, HelperReply, HelperRequest, MAX_FRAME_BYTES, StatusReport,
};
use crate::wire::reply::{StatusInfo, VmInfo};

pub(crate) const ROOT: &str = "/";
const PAUSE: Duration = Duration::from_millis(100);
const HELPER_LIMIT: Duration = Duration::from_secs(5);

impl From<SetupError> for CliError {
    fn from(error: SetupError) -> Self {
        let failure = Self::failed(chain(&error));
        match error.way_out() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

pub(crate) fn need_root(command: &str) -> Result<(), CliError> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(CliError::failed(format!("{command} changes this host and needs root"))
            .hint(format!("sudo banger {command}"))),
    }
}

/// The installation, and its daemon's socket unless another was named.
pub(crate) struct Here {
    pub(crate) places: Places,
    pub(crate) record: Record,
    pub(crate) socket: PathBuf,
    pub(crate) helper: PathBuf,
}

pub(crate) fn here() -> Result<Here, CliError> {
    let (places, record) = installed(Path::new(ROOT))?;
    let (socket, helper) = crate::setup::sockets(&places)?;
    Ok(Here { places, record, socket, helper })
}

/// The directory that the running program lies in.
pub(crate) fn own_directory() -> Result<PathBuf, CliError> {
    let exe = std::env::current_exe();
    let exe = exe.map_err(|error| CliError::from_error("find the running program", &error))?;
    Ok(exe.parent().unwrap_or_else(|| Path::new(ROOT)).to_owned())
}

/// Waits until both units run their present programs, in none of the processes `before`, and the
/// daemon answers.
pub(crate) async fn wait_for_daemon(
    systemd: Systemd,
    socket: &Path,
    before: &[u32],
    limit: Duration,
) -> Result<StatusInfo, CliError> {
    let until = Instant::now() + limit;
    loop {
        let why = match attempt(systemd, socket, before).await {
            Ok(status) => return Ok(status),
            Err(why) => why,
        };
        if Instant::now() >= until {
            let message = format!("the daemon does not serve within {limit:?}: {why}");
            return Err(CliError::failed(message).hint("journalctl -u bangerd -u banger-helper"));
        }
        sleep(PAUSE).await;
    }
}

async fn attempt(systemd: Systemd, socket: &Path, before: &[u32]) -> Result<StatusInfo, String> {
    for unit in UNITS.iter().filter(|unit| !unit.starts_with("banger-guests")) {
        let unit = crate::setup::unit(unit, systemd).map_err(|error| chain(&error))?;
        let old = unit.outdated || unit.pid.is_some_and(|pid| before.contains(&pid));
        if unit.state != "active" || old {
            return Err(format!("{} is {}", unit.name, unit.state));
        }
    }
    status(socket).await.map_err(|error| error.message)
}

pub(crate) async fn status(socket: &Path) -> Result<StatusInfo, CliError> {
    let op = crate::cli::clock::new_op_id()?;
    Client::connect(socket).await?.status(op).await
}

/// Those that take part in the host's life now.
pub(crate) fn is_on(vm: &VmInfo) -> bool {
    matches!(vm.state.as_str(), "running" | "starting" | "stopping" | "suspending")
}

pub(crate) async fn vms_on(client: &mut Client, op: OpId) -> Result<Vec<VmInfo>, CliError> {
    let mut vms = client.vms(op).await?;
    vms.retain(is_on);
    Ok(vms)
}

/// Only root and the owner are answered.
pub(crate) async fn helper_status(socket: &Path) -> Result<StatusReport, String> {
    let asking = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let frames = Frames::connect(stream, HELPER, HELPER_LIMIT).await;
        let mut frames = frames.map_err(|error| chain(&error))?.limited(MAX_FRAME_BYTES);
        let request = HelperRequest { op_id: [0; 16], body: HelperBody::Status };
        frames.send(&request).await.map_err(|error| chain(&error))?;
        match frames.receive::<HelperReply>().await.map_err(|error| chain(&error))? {
            Some(HelperReply::Ok(HelperOk::Status(status))) => Ok(status),
            Some(HelperReply::Denied { reason }) => Err(reason),
            other => Err(format!("it answered {other:?}")),
        }
    };
    let late = |_| Err("no answer".to_owned());
    tokio::time::timeout(HELPER_LIMIT, asking).await.unwrap_or_else(late)
}

/// Prints each change as it is made.
pub(crate) fn teller<'a>(
    app: &'a App,
    lost: &'a mut Option<CliError>,
) -> impl FnMut(crate::setup::Change) + 'a {
    move |change| {
        if lost.is_none() && !app.out.quiet {
            *lost = app.out.line(change).err();
        }
    }
}
