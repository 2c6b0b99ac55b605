//! `banger image show`.

use clap_complete::ArgValueCandidates;
use serde::Serialize;

use crate::cli::app::App;
use crate::cli::client::only;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::reply::{ImageConfigInfo, ImageInfo};
use crate::wire::request::Request;

/// Print all that is known of an image, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(add = ArgValueCandidates::new(complete::images))]
    name: String,
    /// Print JSON, which is the only form there is
    #[arg(long = "json")]
    _json: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    image: ImageInfo,
    /// None of an image that came as a root file system.
    config: Option<ImageConfigInfo>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.name))?;
    let mut client = app.client().await?;
    let asked = client.images(op, Request::ShowImage { name: args.name.clone() }).await;
    let image = asked.and_then(|images| only(images, "an image"));
    let image = image.map_err(|error| error.about(&args.name))?;
    let config = client.image_config(op, &image.name).await?;
    app.out.json(&Shown { image, config })?;
    Ok(Exit::Ok)
}
