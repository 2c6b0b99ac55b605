//! `banger image build`, and what it does for Debian.

use crate::cli::app::App;
use crate::cli::commands::{make, parse};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::wire::request::Request;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Build a Debian image with mmdebstrap
    Debian(Args),
    /// Build an image from a Containerfile or Dockerfile with buildah
    Containerfile(super::containerfile::Args),
}

const AFTER: &str = "\
Examples:
  banger image build debian
  banger image build debian --name dev --include git,curl,build-essential
  banger image build debian --suite trixie --mirror http://deb.debian.org/debian

Ctrl-C takes back what was made.";

/// Build a Debian image with mmdebstrap
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the image [default: debian-SUITE]
    #[arg(long, value_parser = parse::artefact_name)]
    name: Option<String>,
    /// Release of Debian
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// Packages besides the essential ones
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
    include: Vec<String>,
    /// Where packages come from [default: the host's own sources]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

pub(crate) async fn debian(app: &App, args: Args) -> Result<Exit, CliError> {
    let name = match args.name {
        Some(name) => name,
        None => parse::artefact_name(&format!("debian-{}", args.suite)).map_err(CliError::usage)?,
    };
    let op = app.op(Some(&name))?;
    let include = args.include.into_iter().filter(|package| !package.is_empty()).collect();
    let (suite, mirror) = (args.suite, args.mirror);
    let request = Request::BuildDebian { name: name.clone(), suite, include, mirror };
    make::run(app, op, name, &request, OnInterrupt::Cancel).await
}
