//! `banger image list`.

use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::table::Table;
use crate::cli::ui::text;
use crate::wire::request::Request;

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let images = client.images(op, Request::ListImages).await?;
    if args.json {
        app.out.json(&images)?;
    } else if app.out.quiet {
        images.iter().try_for_each(|image| app.out.line(&image.name))?;
    } else {
        let now = clock::unix_ms();
        let mut table = Table::new(["NAME", "DIGEST", "SIZE", "VMS", "SOURCE", "CREATED"]);
        for image in &images {
            table.row([
                image.name.as_str().into(),
                text::short(&image.digest).into(),
                text::size(image.size_bytes).into(),
                image.used_by.len().to_string().into(),
                source(&image.source).into(),
                text::ago(now, image.created_unix_ms).into(),
            ]);
        }
        table.print(&app.out)?;
    }
    Ok(Exit::Ok)
}

/// A digest in it is shown as digests are.
fn source(source: &str) -> String {
    match source.split_once("@sha256:") {
        Some((repository, digest)) => format!("{repository}@sha256:{}", text::short(digest)),
        None => source.to_owned(),
    }
}
