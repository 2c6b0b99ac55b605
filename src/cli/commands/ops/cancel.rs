//! `banger ops cancel`.

use clap_complete::ArgValueCandidates;

use super::watch;
use crate::cli::app::App;
use crate::cli::client::only;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::progress::Progress;
use crate::wire::request::Request;

const AFTER: &str = "\
What the operation has made is taken back; the command waits until it is. Safe at any moment.
What tears something down (stop, kill, delete, clean up) only goes forward and is not cancelled.

Exit status: 0 if it was undone, 1 if it ended otherwise or could not be cancelled.";

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
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let ended = watch::follow(app, &mut client, op, &args.op, |event| {
        track.event(&event.kind);
        Ok(())
    });
    // One that was undone has failed, which is what was wanted here.
    match ended.await {
        Err(error) if error.exit == Exit::Unreachable => return Err(error.about(&args.op)),
        _ => drop(track),
    }
    let shown = client.ops(op, Request::ShowOp { op: args.op.clone() }).await;
    let shown = only(shown?, "an operation")?;
    let what = format!("{} {}", shown.kind, shown.subject);
    let step = shown.step.as_deref().unwrap_or("its beginning");
    match shown.outcome.as_str() {
        "rolled-back" => {
            app.out.note(format!("{what} was cancelled at {step} and is undone"));
            app.out.line(&shown.id)?;
            Ok(Exit::Ok)
        }
        "stuck" => {
            let undo = shown.undo.as_deref().unwrap_or("no cause was given");
            let stuck = format!("{what} was cancelled; undoing {step} failed: {undo}");
            Err(CliError::failed(stuck).hint(format!("banger ops show {}", shown.id)))
        }
        other => Err(CliError::failed(format!("{what} ended before it was cancelled: {other}"))),
    }
}
