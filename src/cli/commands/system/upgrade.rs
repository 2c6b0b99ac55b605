//! `banger system upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;

use super::host::{self, Here};
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::setup::{Renewal, Systemd, restart_units};
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  sudo ./banger system upgrade              from the new release's directory
  sudo banger system upgrade --from ./new
  sudo banger system upgrade --wait         once what is being done has ended

Programs are replaced as a whole and the units restarted; VMs and the commands in them run on. If the
new daemon does not serve in time the old programs are put back and started.";

/// Operations are looked for again after this.
const PAUSE: Duration = Duration::from_millis(500);

/// Put other programs in place under running VMs
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Where the new programs are [default: beside this one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    from: Option<PathBuf>,
    /// Wait for the end of operations that run, instead of refusing
    #[arg(long)]
    wait: bool,
    /// How long the new daemon may take until it serves
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse::duration)]
    limit: Duration,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    host::need_root("system upgrade")?;
    let here = host::here()?;
    let from = match args.from {
        Some(from) => from,
        None => host::own_directory()?,
    };
    let systemd = Systemd::find();
    quiet(app, &here, args.wait).await?;
    let mut lost = None;
    let tell = &mut host::teller(app, &mut lost);
    let renewal = Renewal::begin(&here.places, &here.record, &from, tell)?;
    if !renewal.changed_something() {
        app.out.note("these programs are installed already");
        return Ok(Exit::Ok);
    }
    let error = match serve(systemd, &here, args.limit).await {
        Ok(version) => {
            renewal.keep()?;
            app.out.note(format!("bangerd {version} serves"));
            return Ok(Exit::Ok);
        }
        Err(error) => error,
    };
    renewal.take_back(tell)?;
    let back = serve(systemd, &here, args.limit).await;
    let failure = CliError::failed(format!("the new programs do not serve: {}", error.message));
    Err(match back {
        Ok(_) => failure.hint("the old ones are back and serve; journalctl -u bangerd says why"),
        Err(error) => failure.hint(format!("nor do the old ones: {}", error.message)),
    })
}

async fn serve(systemd: Systemd, here: &Here, limit: Duration) -> Result<String, CliError> {
    let before = restart_units(systemd)?;
    host::wait_for_daemon(systemd, &here.socket, &before, limit).await.map(|status| status.version)
}

/// An operation that is cut short is settled by the next daemon, but not as its owner wanted. A daemon
/// that is down has none.
async fn quiet(app: &App, here: &Here, wait: bool) -> Result<(), CliError> {
    let op = app.op(None)?;
    let mut told = false;
    loop {
        let Ok(mut client) = Client::connect(&here.socket).await else { return Ok(()) };
        let ops = client.ops(op, Request::ListOpenOps).await?;
        let Some(first) = ops.first() else { return Ok(()) };
        let what = format!("{} operations run ({} {})", ops.len(), first.kind, first.subject);
        if !wait {
            return Err(CliError::failed(what).hint("banger system upgrade --wait"));
        }
        if !told {
            app.out.note(format!("{what}; waiting"));
        }
        told = true;
        tokio::time::sleep(PAUSE).await;
    }
}
