//! `banger ops show`.

use clap_complete::ArgValueCandidates;

use super::ladder;
use crate::cli::app::App;
use crate::cli::client::only;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger ops show op-0198c2   the id may be cut short where it stays unique

Every error message ends with its operation's id; the logs of daemon and helper have it too.";

/// Show the steps of one operation with their times
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Operation id or unique prefix of it
    #[arg(value_name = "OP", add = ArgValueCandidates::new(complete::ops))]
    op: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.op))?;
    let mut client = app.client().await?;
    let asked = client.ops(op, Request::ShowOp { op: args.op.clone() }).await;
    let shown = asked.and_then(|ops| only(ops, "an operation"));
    let shown = shown.map_err(|error| error.about(&args.op))?;
    if args.json {
        app.out.json(&shown)?
    } else {
        ladder::print(app, &shown)?
    }
    Ok(Exit::Ok)
}
