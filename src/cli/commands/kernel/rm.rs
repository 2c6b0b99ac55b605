//! `banger kernel rm`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::commands::many::{self, Noun};
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::wire::request::Request;

/// Delete kernels that no VM uses
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names of kernels
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::kernels))]
    names: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let request = |name| Request::DeleteKernel { name };
    many::each(app, &args.names, Noun::Artefact, OnInterrupt::Leave, request).await
}
