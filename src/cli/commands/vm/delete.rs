//! `banger vm delete`.

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
  banger vm delete web
  banger vm rm $(banger ps -aq)      all of them

There is no way back: the disks are gone.";

/// Stop VMs and remove their disks for good
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let request = |vm| Request::DeleteVm { vm };
    many::each(app, &args.vms, Noun::Vm, OnInterrupt::Leave, request).await
}
