//! `banger vm exec`: one question to the daemon, then SSH.

use std::time::Duration;

use clap_complete::ArgValueCandidates;

use super::guest_args::TtyArgs;
use super::program::Image;
use super::workspace::enter::{Entered, WorkspaceArgs};
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Forwards, Guest, ROOT, Task, What};
use crate::model::OpId;

const AFTER: &str = "\
Examples:
  banger vm exec web -- uname -a
  banger vm exec web -- sh -c 'cd /srv && make'      a shell, for its syntax
  tar -c . | banger vm exec web -- tar -x -C /srv    streams pass through
  banger vm exec -e TERM -w /srv -u www-data web -- ./run --fast
  banger vm exec -it web -- top                      a terminal
  banger vm exec --detach web -- ./serve             a job; see vm jobs and vm logs --job

In a VM with a workspace (`banger vm workspace`) the command runs in it, under mise if the guest has
mise, and a line says so when the repository has changed since. A user who may not enter it is at
home instead.

The words after -- reach the guest as they are, without a shell. Standard input is passed on:
in a shell loop say -n. Ctrl-C interrupts the command, a second one ends the wait.

Exit status: the command's; 128+N if signal N killed it, 126 or 127 if the guest could not run
or find it, 125 if banger itself failed, wrong usage included.";

/// Run a command in a running VM
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    command: Vec<String>,
    /// Set a variable for the command; NAME alone takes its value from here
    #[arg(
        long = "env", short, value_name = "NAME[=VALUE]", value_parser = parse::variable
    )]
    env: Vec<(String, Option<String>)>,
    /// Directory in the guest to run it in [default: the workspace, else the image's, else the user's
    /// home]
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// The user of the guest to run it as, or USER:GROUP, also by number [default: the image's, else
    /// root]
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Pass standard input on [default]
    #[arg(long, short, overrides_with = "no_stdin")]
    interactive: bool,
    /// Give the command an empty standard input
    #[arg(long, short, overrides_with = "interactive")]
    no_stdin: bool,
    /// End the command after so long: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Let it run on in the guest, and print the number of the job
    #[arg(long, conflicts_with_all = ["tty", "interactive", "timeout"])]
    detach: bool,
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    tty: TtyArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let env = parse::environment(args.env.clone())?;
    let mut client = app.client().await?;
    let entered = args.workspace.enter(app, &mut client, op, &args.vm).await;
    let entered = entered.map_err(|error| error.about(&args.vm))?;
    let args = as_its_image_says(&mut client, op, args, &entered).await?;
    if args.detach {
        return detach(app, client, op, args, env, entered).await;
    }
    let tty = args.tty.choice().wanted();
    let (user, forwards) = (args.user.as_deref(), Forwards::default());
    let guest = Guest::dial_with(&mut client, op, &args.vm, user, !tty, forwards).await;
    let mut guest = guest.map_err(|error| error.about(&args.vm))?;
    let entered = match args.workdir {
        Some(_) => entered,
        None => entered.of_user(app, op, &mut guest, user).await,
    };
    let what = What::Command(entered.argv(args.command));
    let workdir = args.workdir.or(entered.directory);
    let (timeout, input) = (args.timeout, !args.no_stdin);
    let task = Task { op, what, tty, env, workdir, timeout, input, agent: false };
    guest.run(task, std::future::ready(Some(client))).await
}

/// What was not asked for is as the image says. A workspace is root's, and is where its commands are.
async fn as_its_image_says(
    client: &mut Client,
    op: OpId,
    mut args: Args,
    entered: &Entered,
) -> Result<Args, CliError> {
    if entered.directory.is_some() {
        return Ok(args);
    }
    let image = Image::of(client, op, &args.vm).await.map_err(|error| error.about(&args.vm))?;
    args.user = args.user.or_else(|| image.user());
    args.workdir = args.workdir.or_else(|| image.workdir());
    Ok(args)
}

async fn detach(
    app: &App,
    mut client: Client,
    op: OpId,
    args: Args,
    env: Vec<(String, String)>,
    entered: Entered,
) -> Result<Exit, CliError> {
    let entered = match (&args.user, &args.workdir) {
        (Some(user), None) if entered.is_implied && user != ROOT => {
            let forwards = Forwards::default();
            let as_user =
                Guest::dial_with(&mut client, op, &args.vm, Some(user), false, forwards).await;
            let mut as_user = as_user.map_err(|error| error.about(&args.vm))?;
            entered.of_user(app, op, &mut as_user, Some(user)).await
        }
        _ => entered,
    };
    let guest = Guest::dial(&mut client, op, &args.vm, true).await;
    let mut guest = guest.map_err(|error| error.about(&args.vm))?;
    let argv = entered.argv(args.command);
    let workdir = args.workdir.or(entered.directory);
    let id = guest.start_job(op, argv, env, workdir, args.user).await?;
    app.out.line(id)?;
    Ok(Exit::Ok)
}
