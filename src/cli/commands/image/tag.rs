//! `banger image tag`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger image tag debian-bookworm base
  banger image tag web web-before && banger image delete web

Both names have the same contents and are run in the same way. Contents go with the last of their
names.";

/// Give an image one more name
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(add = ArgValueCandidates::new(complete::images))]
    name: String,
    /// The other name
    #[arg(value_name = "NEW", value_parser = parse::artefact_name)]
    tag: String,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { name, tag } = args;
    let op = app.op(Some(&tag))?;
    let mut client = app.client().await?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::TagImage { name: name.clone(), tag: tag.clone() };
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Leave).await;
    let ended = ended.map_err(|broken| CliError::from(broken).about(&name))?;
    if let Some(why) = ended.unchanged() {
        track.note(format!("{tag}: {why}"));
    }
    drop(track);
    app.out.line(tag)?;
    Ok(Exit::Ok)
}
