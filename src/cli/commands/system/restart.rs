//! `banger system restart`.

use std::time::Duration;

use super::host;
use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::setup::{Systemd, restart, sockets};

const AFTER: &str = "\
Examples:
  sudoedit /etc/banger/config.toml && sudo banger system restart

The units are written again first: what the helper may touch is said in its arguments.";

/// Make changes of the configuration count; VMs run on
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// How long the daemon may take until it serves
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse::duration)]
    limit: Duration,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    host::need_root("system restart")?;
    let here = host::here()?;
    let systemd = Systemd::find();
    let mut lost = None;
    let before = restart(&here.places, &here.record, systemd, &mut host::teller(app, &mut lost))?;
    // It may have another socket than it had.
    let (socket, _) = sockets(&here.places)?;
    let status = host::wait_for_daemon(systemd, &socket, &before, args.limit).await?;
    app.out.note(format!("{} VMs, {} running", status.vms, status.vms_running));
    Ok(Exit::Ok)
}
