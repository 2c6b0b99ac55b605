//! `banger vm health`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::text;
use crate::wire::reply::{HealthInfo, UpkeepInfo};

const AFTER: &str = "\
Examples:
  banger vm health web
  banger vm health web --json | jq -r .status
  banger vm set web --health-cmd 'curl -sf localhost'     what is checked

Exit status: 0 if it is healthy, 1 if it is not, or not known to be.";

/// Print how a VM's health checks have gone
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let upkeep = client.upkeep(op, vec![args.vm.clone()]).await;
    let upkeep = upkeep.map_err(|error| error.about(&args.vm))?.pop();
    let health = upkeep.and_then(|UpkeepInfo { health, .. }| health).ok_or_else(|| {
        CliError::failed(format!("{} has no health check", args.vm))
            .hint(format!("give it one: banger vm set {} --health-cmd COMMAND", args.vm))
    })?;
    if args.json {
        app.out.json(&health)?;
    } else {
        said(&health, clock::unix_ms()).iter().try_for_each(|line| app.out.line(line))?;
    }
    Ok(if health.status == "healthy" { Exit::Ok } else { Exit::Failed })
}

fn said(health: &HealthInfo, now: u64) -> Vec<String> {
    let mut lines = vec![health.status.clone()];
    if health.failures > 0 {
        lines[0] = format!("{} ({} failures in a row)", health.status, health.failures);
    }
    if let Some(last) = &health.last {
        lines.push(format!("last check: {}, {}", last.how, text::ago(now, last.unix_ms)));
        lines.extend(last.output.lines().map(|line| format!("  {line}")));
    }
    lines
}
