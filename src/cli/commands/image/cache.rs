//! What `banger image prune --cache` and `banger image df` say of the cache of registries.

use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::cli::ui::table::Table;
use crate::cli::ui::text;
use crate::wire::reply::BlobInfo;
use crate::wire::request::Request;

pub(super) async fn empty(app: &App) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let blobs = client.blobs(op).await?;
    if blobs.is_empty() {
        app.out.note("nothing to remove; the cache is empty");
        return Ok(Exit::Ok);
    }
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::EmptyCache;
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Leave).await;
    ended.map_err(CliError::from)?;
    drop(track);
    app.out.note(format!("removed {}", sum(&blobs)));
    Ok(Exit::Ok)
}

pub(super) async fn would_empty(app: &App, json: bool) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let blobs = app.client().await?.blobs(op).await?;
    if json {
        app.out.json(&blobs)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["BLOB", "WHAT", "FREES", "USED", "WHY"]);
    let now = clock::unix_ms();
    for blob in &blobs {
        let why = match blob.whole {
            true => "only later pulls would use it",
            false => "not whole; a pull would go on with it",
        };
        table.row([
            format!("sha256:{}", text::short(&blob.digest)).into(),
            "goes".into(),
            text::size(blob.bytes).into(),
            text::ago(now, blob.used_unix_ms).into(),
            why.into(),
        ]);
    }
    table.print(&app.out)?;
    app.out.note(format!("would remove {}", sum(&blobs)));
    Ok(Exit::Ok)
}

/// `3 blobs of registries, 41 MiB`.
pub(super) fn sum(blobs: &[BlobInfo]) -> String {
    let bytes = text::size(blobs.iter().map(|blob| blob.bytes).sum());
    let count = blobs.len();
    format!("{count} {} of registries, {bytes}", if count == 1 { "blob" } else { "blobs" })
}
