//! `banger vm set`.

use clap_complete::ArgValueCandidates;

use super::upkeep::UpkeepArgs;
use crate::cli::app::App;
use crate::cli::commands::many::{self, Noun};
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::model::Size;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger vm set web --disk-size 16G
  banger vm stop web && banger vm set web --vcpu 4 --memory 8G
  banger vm set web --restart on-failure:5
  banger vm set web --health-cmd 'curl -sf localhost' --health-interval 10s

Disks only grow, and a guest sees it when it is started next; one that is paused because its disk is
full goes on at once. vcpu and memory are changed when it is stopped.";

/// What may be said of how it is kept running.
const UPKEEP: [&str; 6] = [
    "restart",
    "health_cmd",
    "health_interval",
    "health_timeout",
    "health_retries",
    "health_start_period",
];

/// Change what a VM has and how it is kept running
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(UPKEEP)))]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
    /// Number of CPUs
    #[arg(long, group = "what", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    vcpu: Option<u32>,
    /// Memory: 512M, 4G; a bare number is MiB
    #[arg(long, group = "what", value_name = "SIZE", value_parser = parse::memory)]
    memory: Option<u32>,
    /// What can be written to / besides the image
    #[arg(long, group = "what", value_name = "SIZE", value_parser = parse::size)]
    disk_size: Option<Size>,
    /// Size of the disk at /root
    #[arg(long, group = "what", value_name = "SIZE", value_parser = parse::size)]
    work_disk_size: Option<Size>,
    #[command(flatten)]
    upkeep: UpkeepArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { vms, vcpu, memory: memory_mib, disk_size, work_disk_size, upkeep } = args;
    let (disk_bytes, work_disk_bytes) =
        (disk_size.map(Size::bytes), work_disk_size.map(Size::bytes));
    let upkeep = upkeep.upkeep();
    let request = |vm| match upkeep.clone() {
        None => Request::SetVm { vm, vcpu, memory_mib, disk_bytes, work_disk_bytes },
        Some(upkeep) => {
            Request::SetVmKept { vm, vcpu, memory_mib, disk_bytes, work_disk_bytes, upkeep }
        }
    };
    many::each(app, &vms, Noun::Vm, OnInterrupt::Leave, request).await
}
