//! `banger kernel pull`.

use crate::cli::app::App;
use crate::cli::commands::{make, parse};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger kernel pull linux-image-cloud-amd64                      whatever that is now
  banger kernel pull linux-image-6.1.0-50-cloud-amd64
  banger kernel pull linux-image-cloud-amd64 --suite bookworm-backports --name next

The package comes through this host's own sources, as apt gets it: its mirrors, keys and proxies are
those of /etc/apt, and nothing is installed. Asked again, a later version takes the name; the one
that VMs boot stays under a name of its own. Many who ask for one kernel wait for one pull.";

/// Pull a kernel of Debian's packages
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the package, or of one that stands for it
    package: String,
    /// Name of the kernel [default: the package's]
    #[arg(long, value_parser = parse::artefact_name)]
    name: Option<String>,
    /// Suite to take it from, one of the host's sources
    #[arg(long)]
    suite: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let name = args.name.clone().unwrap_or_else(|| args.package.clone());
    let op = app.op(Some(&name))?;
    let Args { package, name: named, suite } = args;
    let request = Request::PullKernel { package, suite, name: named };
    make::run(app, op, name, &request, OnInterrupt::Withdraw).await
}
