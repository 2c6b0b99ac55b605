//! `banger ops watch`.

use clap_complete::ArgValueCandidates;
use tokio::time::Instant;

use super::ladder;
use crate::cli::app::App;
use crate::cli::client::{Client, lost};
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{RETURN_LIMIT, RETURN_PAUSE};
use crate::cli::ui::progress::Progress;
use crate::model::OpId;
use crate::wire::frame::FrameError;
use crate::wire::reply::{Answer, EventInfo, OpInfo, Reply};
use crate::wire::request::Request;

const AFTER: &str = "\
What happened so far is told first. Ctrl-C stops watching, not the operation. A daemon that
goes away is waited for; what its successor makes of the operation is its end.

Exit status: 0 if the operation ended well, 1 if it was undone or got stuck.";

/// Follow an operation to its end
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Operation id or unique prefix of it
    #[arg(value_name = "OP", add = ArgValueCandidates::new(complete::ops))]
    op: String,
    /// Print its events, a JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.op))?;
    let mut client = app.client().await?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let ended = follow(app, &mut client, op, &args.op, |event| {
        if args.json {
            return app.out.json_line(event);
        }
        track.event(&event.kind);
        Ok(())
    });
    let ended = ended.await.map_err(|error| error.about(&args.op));
    drop(track);
    let ended = ended?;
    if !args.json {
        ladder::print(app, &ended)?;
    }
    let well = matches!(ended.outcome.as_str(), "done" | "unchanged");
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

/// Tells of everything from the operation's beginning on, each event once, to its end.
pub(super) async fn follow(
    app: &App,
    client: &mut Client,
    op: OpId,
    text: &str,
    mut tell: impl FnMut(&EventInfo) -> Result<(), CliError>,
) -> Result<OpInfo, CliError> {
    let request = Request::WatchOp { op: text.to_owned() };
    client.send(op, None, &request).await.map_err(|error| lost(&error))?;
    let (mut seen, mut since) = (0, None);
    loop {
        match client.receive().await {
            Ok(Reply::Event(event)) => {
                since = None;
                if event.seq > seen || event.seq == 0 {
                    tell(&event)?;
                }
                seen = seen.max(event.seq);
            }
            Ok(Reply::Accepted { .. }) => {}
            Ok(Reply::Done(Answer::Ended { op, .. })) => return Ok(*op),
            Ok(Reply::Failed(failure)) => return Err(failure.into()),
            Ok(other) => return Err(CliError::unexpected("progress", &other)),
            Err(error @ FrameError::Codec(_)) => return Err(lost(&error)),
            Err(error) => {
                let until = *since.get_or_insert_with(|| {
                    app.out.note("lost the daemon; waiting for it to come back");
                    Instant::now() + RETURN_LIMIT
                });
                while client.reconnect().await.is_err()
                    || client.send(op, None, &request).await.is_err()
                {
                    if Instant::now() > until {
                        return Err(CliError { exit: Exit::Unreachable, ..lost(&error) });
                    }
                    tokio::time::sleep(RETURN_PAUSE).await;
                }
            }
        }
    }
}
