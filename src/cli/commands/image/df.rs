//! `banger image df`.

use super::cache;
use crate::cli::app::App;
use crate::cli::commands::prune::Usage;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::table::Table;
use crate::cli::ui::text;
use crate::wire::reply::ImageUsageInfo;

const AFTER: &str = "\
Examples:
  banger image df
  banger image df --json | jq '[.[].file_bytes] | add'

FILE is what VMs share, SEED what their work disks begin with, SNAPSHOTS memories that VMs start
from. What an image would free is what `banger image prune` gets by removing all of its names.";

/// Show what images take of the disk
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let usage = client.image_usage(op).await?;
    if args.json {
        app.out.json(&usage)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["NAMES", "DIGEST", "VMS", "FILE", "SEED", "SNAPSHOTS", "FREE"]);
    for one in &usage {
        let names: Vec<_> = one.names.iter().map(|name| name.name.as_str()).collect();
        table.row([
            names.join(", ").into(),
            text::short(&one.digest).into(),
            one.used_by.len().to_string().into(),
            text::size(one.file_bytes).into(),
            text::size(one.seed_bytes).into(),
            text::size(one.snapshot_bytes).into(),
            text::size(one.would_free()).into(),
        ]);
    }
    table.print(&app.out)?;
    let sum = |of: fn(&ImageUsageInfo) -> u64| text::size(usage.iter().map(of).sum());
    app.out.note(format!(
        "{} in all, {} of it would be free",
        sum(Usage::bytes),
        sum(Usage::would_free)
    ));
    let blobs = client.blobs(op).await?;
    if !blobs.is_empty() {
        let cached = cache::sum(&blobs);
        app.out.note(format!("besides: {cached}; `banger image prune --cache` removes them"));
    }
    Ok(Exit::Ok)
}
