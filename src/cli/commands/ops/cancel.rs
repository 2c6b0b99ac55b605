//! `banger ops cancel`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::request::Request;

const AFTER: &str = "\
What the operation has made is taken back. Safe at any moment; an operation that tears
something down only goes forward and is not cancelled.";

/// Take a running operation back
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Operation id or unique prefix of it
    #[arg(value_name = "OP", add = ArgValueCandidates::new(complete::ops))]
    op: String,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.op))?;
    let mut client = app.client().await?;
    let asked = client.ask(op, Request::CancelOp { op: args.op.clone() }).await;
    asked.map_err(|error| error.about(&args.op))?;
    app.out.line(&args.op)?;
    Ok(Exit::Ok)
}
