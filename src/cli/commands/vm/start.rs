//! `banger vm start`.

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
  banger vm start web
  banger vm start web db      both at once
  banger vm start --discard-memory web

A suspended VM goes on where it stood, as by `banger vm resume`. Returns when they have booted and answer. Prints the names of those that did.";

/// Start stopped or suspended VMs
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
    /// Boot suspended VMs from their disks; what they had in memory is lost
    #[arg(long)]
    discard_memory: bool,
    /// Repair their disks first, whatever it takes; what lost its name is then in lost+found
    #[arg(long, conflicts_with = "discard_memory")]
    repair: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let request = |vm| match (args.discard_memory, args.repair) {
        (true, _) => Request::StartVmCold { vm },
        (_, true) => Request::StartVmRepaired { vm },
        _ => Request::StartVm { vm },
    };
    many::each(app, &args.vms, Noun::Vm, OnInterrupt::Cancel, request).await
}
