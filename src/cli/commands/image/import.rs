//! `banger image import`.

use std::path::PathBuf;

use clap::ValueHint;

use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::wire::request::{ImageSource, Request};

const AFTER: &str = "\
Examples:
  banger image import mine rootfs.tar
  banger image import mine ./rootfs
  docker save nginx -o nginx.tar && banger image import nginx nginx.tar
  skopeo copy docker://debian:bookworm oci:./debian && banger image import debian ./debian

The tar may be compressed. Owners, modes, links, devices and capabilities are kept. An OCI layout,
as a directory or in one file, and an archive of `docker save` become the image for this platform
that they hold, which is run as it says: see `banger run --help`. The daemon reads the path as its
own user.";

/// Make an image from a tar file, a directory or a container image
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(value_parser = parse::artefact_name)]
    name: String,
    /// Tar file or directory with a root file system, an OCI layout, or an archive of docker save
    #[arg(value_hint = ValueHint::AnyPath)]
    path: PathBuf,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { name, path } = args;
    let op = app.op(Some(&name))?;
    let path = parse::absolute(&path)?;
    let directory = path.is_dir();
    let path = parse::utf8(path)?;
    let source =
        if directory { ImageSource::Directory { path } } else { ImageSource::Tar { path } };
    let mut client = app.client().await?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::ImportImage { name: name.clone(), source };
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Cancel).await;
    let ended = ended.map_err(|broken| CliError::from(broken).about(&name))?;
    if let Some(why) = ended.unchanged() {
        track.note(format!("{name}: {why}"));
    }
    drop(track);
    app.out.line(name)?;
    Ok(Exit::Ok)
}
