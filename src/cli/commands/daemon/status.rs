//! `banger daemon status`.

use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::{table, text};

/// Show where the daemon runs and what it holds
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let status = client.status(op).await?;
    if args.json {
        app.out.json(&status)?;
        return Ok(Exit::Ok);
    }
    let version = if status.simulated { " (simulated host)" } else { "" };
    let pairs = [
        ("version", format!("{}{version}", status.version)),
        ("protocol", client.protocol().to_string()),
        ("pid", format!("{} (uid {})", status.pid, status.uid)),
        ("started", text::ago(clock::unix_ms(), status.started_unix_ms)),
        ("socket", status.socket),
        ("state", status.state_dir),
        ("helper", status.helper),
        ("network", format!("{} {}", status.bridge, status.subnet)),
        ("dns", status.dns_listen.unwrap_or_else(|| "off".to_owned())),
        ("taps", format!("{} leased, {} ready", status.taps_leased, status.taps_ready)),
        ("vms", format!("{} ({} running)", status.vms, status.vms_running)),
    ];
    table::pairs(&app.out, pairs)?;
    Ok(Exit::Ok)
}
