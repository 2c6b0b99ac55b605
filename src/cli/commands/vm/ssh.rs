//! `banger vm ssh`: a root shell in the guest.

use clap_complete::ArgValueCandidates;

use super::guest_args::TtyArgs;
use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Guest, Task, What};

const AFTER: &str = "\
Examples:
  banger vm ssh web
  banger vm ssh web -- top
  banger vm ssh web < setup.sh        without a terminal the shell reads stdin

Everything typed goes to the guest, Ctrl-C too. If the guest hangs, ~. at the start of a line
leaves.

Exit status: the shell's or the command's, as with `banger vm exec`; 125 if banger itself failed.";

/// Open a shell in a running VM
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// A command instead of the shell
    #[arg(value_name = "CMD", last = true)]
    command: Vec<String>,
    #[command(flatten)]
    tty: TtyArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let tty = args.tty.choice().wanted();
    let shell = args.command.is_empty();
    let guest = Guest::dial(&mut client, op, &args.vm, !shell && !tty).await;
    let mut guest = guest.map_err(|error| error.about(&args.vm))?;
    let what = if shell { What::Shell } else { What::Command(args.command) };
    let task = Task { op, what, tty, env: vec![], workdir: None, timeout: None };
    let ended = guest.run(task, async { app.client().await.ok() }).await;
    if shell && tty {
        super::guest_args::note_if_running(app, client, guest.vm_id()).await;
    }
    ended
}
