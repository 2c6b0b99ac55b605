//! What makes an image or a kernel has in common: it is followed to its end, and the name is printed.

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::model::OpId;
use crate::wire::request::Request;

pub(crate) async fn run(
    app: &App,
    op: OpId,
    name: String,
    request: &Request,
    on_interrupt: OnInterrupt,
) -> Result<Exit, CliError> {
    let mut client = app.client().await?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let ended = operation::run(&mut client, op, request, &mut track, on_interrupt).await;
    let ended = ended.map_err(|broken| CliError::from(broken).about(&name))?;
    if let Some(why) = ended.unchanged() {
        track.note(format!("{name}: {why}"));
    }
    drop(track);
    app.out.line(name)?;
    Ok(Exit::Ok)
}
