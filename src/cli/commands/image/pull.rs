//! `banger image pull`, and the same for a VM whose image is not here.

use clap::ValueEnum;

use crate::cli::app::App;
use crate::cli::client::{Client, only};
use crate::cli::commands::download;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::Ended;
use crate::wire::request::{PullWhen, Request};

const AFTER: &str = "\
Examples:
  banger image pull python:3.12                from Docker Hub, as with docker pull
  banger image pull quay.io/centos/centos:stream9
  banger image pull alpine@sha256:8a1f59ff...  this very image, whatever tags say
  banger vm run --image python:3.12 -- python  pulls it if it is not here

Prints the image's full name, by which it is listed; the short one finds it, too. A pull that broke,
or that outlived its daemon, goes on where it was. Many who ask for one image wait for one pull:
Ctrl-C ends it once nobody else waits; `banger ops cancel` ends it for all.

The daemon reads credentials as its own user, where podman login and docker login keep them.
Registries without TLS and authorities of your own are named in [registries] of its configuration.";

/// Pull an image from a registry
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// [REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]
    #[arg(value_name = "REFERENCE")]
    image: String,
    /// Print the image as JSON
    #[arg(long)]
    json: bool,
}

/// When the image of a new VM is asked of its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullArg {
    /// Before every VM: a tag may have moved
    Always,
    /// If it is not here
    Missing,
    Never,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let mut client = app.client().await?;
    let ended = pull(app, &mut client, &args.image, PullWhen::Always).await?;
    if let Some(why) = ended.unchanged() {
        app.out.note(format!("{}: {why}", args.image));
    }
    let op = app.op(Some(&args.image))?;
    let name = ended.op.map_or(args.image, |op| op.subject);
    let images = client.images(op, Request::ShowImage { name }).await?;
    let image = only(images, "an image")?;
    if args.json {
        app.out.json(&image)?
    } else {
        app.out.line(&image.name)?
    }
    Ok(Exit::Ok)
}

pub(crate) async fn pull(
    app: &App,
    client: &mut Client,
    image: &str,
    when: PullWhen,
) -> Result<Ended, CliError> {
    let request = Request::PullImage { image: image.to_owned(), when };
    download::run(app, client, image, &request).await
}
