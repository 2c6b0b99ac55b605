//! `banger vm resume`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::commands::many::{self, Noun};
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger vm resume web

The guest goes on where it stood, with the right time and fresh random numbers. Where its memory
cannot be read any more, by another version of its VMM for instance, it stays suspended, and
`banger vm start --discard-memory` boots it from its disks.";

/// Let suspended VMs go on
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let request = |vm| Request::ResumeVm { vm };
    many::each(app, &args.vms, Noun::Vm, OnInterrupt::Cancel, request).await
}
