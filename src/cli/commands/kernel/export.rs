//! `banger kernel export`.

use std::path::PathBuf;

use clap::ValueHint;
use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::commands::image::export::{Place, stream};
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger kernel export debian-6.1 debian-6.1.bundle.tar.zst
  banger kernel import debian-6.1 debian-6.1.bundle.tar.zst      on another host";

/// Write a kernel as a bundle
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the kernel
    #[arg(add = ArgValueCandidates::new(complete::kernels))]
    name: String,
    /// File to make, or - for standard output
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let request = Request::ExportKernel { name: args.name.clone() };
    stream(app, &args.name, request, Place::file(args.file)?).await
}
