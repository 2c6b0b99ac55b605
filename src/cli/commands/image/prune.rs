//! `banger image prune`.

use super::cache;
use crate::cli::app::App;
use crate::cli::commands::prune;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

const AFTER: &str = "\
Examples:
  banger image prune --dry-run      what would go, what that frees, and why the rest stays
  banger image prune
  banger image prune --cache        what was kept of registries for later pulls

Names that no VM was made from go, but for the default image. Contents go with the last of their
names, and with them what work disks begin with and memories that VMs start from. Each removal is
an operation of its own, and looks again: an image that got a VM meanwhile stays. Images need
nothing of the cache once they are made; without it later pulls fetch all of their layers.";

/// Delete images that no VM uses
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    prune: prune::PruneArgs,
    /// Empty the cache of registries instead
    #[arg(long)]
    cache: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    if args.cache {
        return match args.prune.dry_run {
            true => cache::would_empty(app, args.prune.json).await,
            false => cache::empty(app).await,
        };
    }
    let op = app.op(None)?;
    let usage = app.client().await?.image_usage(op).await?;
    prune::run(app, &args.prune, &usage).await
}
