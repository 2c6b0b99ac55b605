//! `banger vm restart`.

use std::time::Duration;

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
  banger vm restart web";

/// Stop VMs and start them again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
    /// How long the guest may take to stop: 20s, 1m [default: the daemon's stop_grace, 20s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    grace: Option<Duration>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let grace_ms = args.grace.map(parse::millis);
    let request = |vm| Request::RestartVm { vm, grace_ms };
    many::each(app, &args.vms, Noun::Vm, OnInterrupt::Leave, request).await
}
