//! `banger vm kill`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::commands::many::{self, Noun};
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger vm kill web

What the guest had not yet written to its disks is lost; `banger vm stop` loses nothing.
Of a suspended VM the memory is lost.";

/// End VMs at once, like pulling the plug
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
    /// Signal for the process that runs the VM
    #[arg(
        long, short, value_name = "SIGNAL", default_value = "KILL", value_parser = parse::signal
    )]
    signal: i32,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let signal = args.signal;
    let request = |vm| Request::KillVm { vm, signal };
    many::each(app, &args.vms, Noun::Vm, OnInterrupt::Leave, request).await
}
