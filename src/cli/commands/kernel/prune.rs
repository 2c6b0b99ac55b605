//! `banger kernel prune`.

use crate::cli::app::App;
use crate::cli::commands::prune;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

const AFTER: &str = "\
Examples:
  banger kernel prune --dry-run     what would go, what that frees, and why the rest stays
  banger kernel prune

Names that no VM was made from go, but for the default kernel (`banger kernel default`). Contents go
with the last of their names, and with them the initramfs that guests boot with them. Each removal
is an operation of its own, and looks again: a kernel that got a VM meanwhile stays.";

/// Delete kernels that no VM uses
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    prune: prune::PruneArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let usage = app.client().await?.kernel_usage(op).await?;
    prune::run(app, &args.prune, &usage).await
}
