//! `banger ops watch`.

use clap_complete::ArgValueCandidates;

use super::ladder;
use crate::cli::app::App;
use crate::cli::client::lost;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::progress::Progress;
use crate::wire::reply::{Answer, Reply};
use crate::wire::request::Request;

const AFTER: &str = "\
What happened so far is told first. Ctrl-C stops watching, not the operation.

Exit status: 0 if the operation ended well, 1 if it was undone or got stuck.";

/// Follow an operation to its end
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
    let request = Request::WatchOp { op: args.op.clone() };
    client.send(op, None, &request).await.map_err(|error| lost(&error))?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let ended = loop {
        match client.stream().await.map_err(|error| error.about(&args.op))? {
            Reply::Event(event) => track.event(&event.kind),
            Reply::Accepted { .. } => {}
            Reply::Done(Answer::Ended { op, .. }) => break op,
            other => return Err(CliError::unexpected("progress", &other)),
        }
    };
    drop(track);
    ladder::print(app, &ended)?;
    let well = matches!(ended.outcome.as_str(), "done" | "unchanged");
    Ok(if well { Exit::Ok } else { Exit::Failed })
}
