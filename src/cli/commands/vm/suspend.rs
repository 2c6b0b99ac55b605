//! `banger vm suspend`.

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
  banger vm suspend web
  banger vm suspend $(banger ps -q)    all that run
  banger vm resume web                 and everything in it goes on

The guest's memory is written beside its disks, at most as much as it has; then it uses neither
memory nor CPU of the host. Commands and shells in it lose their connection, what runs on its own
does not notice.";

/// Write the memory of running VMs to disk and free it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let request = |vm| Request::SuspendVm { vm };
    many::each(app, &args.vms, Noun::Vm, OnInterrupt::Cancel, request).await
}
