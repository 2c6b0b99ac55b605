//! `banger image import`.

use std::path::PathBuf;

use clap::ValueHint;

use crate::cli::app::App;
use crate::cli::commands::download::{self, Place};
use crate::cli::commands::{make, parse};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::model::Digest;
use crate::wire::request::{ImageSource, Request};

const AFTER: &str = "\
Examples:
  banger image import mine rootfs.tar
  banger image import mine ./rootfs
  docker save nginx -o nginx.tar && banger image import nginx nginx.tar
  skopeo copy docker://debian:bookworm oci:./debian && banger image import debian ./debian
  banger image import web web.bundle.tar.zst        from banger image export --bundle
  banger image import web https://example.org/web.bundle.tar.zst --sha256 9f86d0818...

The tar may be compressed. Owners, modes, links, devices and capabilities are kept. An OCI layout,
as a directory or in one file, and an archive of `docker save` become the image for this platform
that they hold, which is run as it says: see `banger run --help`. A bundle is taken over as it is,
with the kernel that it wants; all in it is verified. The daemon reads the path as its own user.

A download that broke, or that outlived its daemon, goes on where it was. The digest decides what
comes, so the server need not be trusted; one without TLS is named in [registries] plain_http.";

/// Make an image from a tar file, a directory, a container image or a bundle
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(value_parser = parse::artefact_name)]
    name: String,
    /// Tar file or directory with a root file system, an OCI layout, an archive of docker save, or a
    /// bundle; of a bundle a URL will do
    #[arg(value_name = "PATH|URL", value_hint = ValueHint::AnyPath)]
    path: PathBuf,
    /// SHA-256 of what the URL gives
    #[arg(long, value_name = "HEX", value_parser = parse::sha256)]
    sha256: Option<Digest>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { name, path, sha256 } = args;
    let source = match download::place(path, sha256)? {
        Place::Url { url, sha256 } => {
            let source = ImageSource::Url { url, sha256 };
            let request = Request::ImportImage { name: name.clone(), source };
            download::run(app, &mut app.client().await?, &name, &request).await?;
            app.out.line(name)?;
            return Ok(Exit::Ok);
        }
        Place::Path(path) if path.is_dir() => ImageSource::Directory { path: parse::utf8(path)? },
        Place::Path(path) => ImageSource::Tar { path: parse::utf8(path)? },
    };
    let op = app.op(Some(&name))?;
    let request = Request::ImportImage { name: name.clone(), source };
    make::run(app, op, name, &request, OnInterrupt::Cancel).await
}
