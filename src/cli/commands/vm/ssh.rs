//! `banger vm ssh`: a root shell in the guest.

use clap_complete::ArgValueCandidates;

use super::guest_args::TtyArgs;
use super::program::Image;
use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Forward, Forwards, Guest, Socks, Task, What, own_agent};

const AFTER: &str = "\
Examples:
  banger vm ssh web
  banger vm ssh web -- top
  banger vm ssh web < setup.sh        without a terminal the shell reads stdin
  banger vm ssh -L 8080:localhost:80 web        the guest's port 80 is 8080 here
  banger vm ssh -N -R 5432:localhost:5432 web   a database here is the guest's, until Ctrl-C
  banger vm ssh -A web                          with the keys of your ssh-agent

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
    /// The user of the guest to be [default: the image's, else root]
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Let what runs there use the keys of your ssh-agent
    #[arg(short = 'A', long)]
    forward_agent: bool,
    /// Carry connections to PORT here to HOST:HOSTPORT as the guest sees it
    #[arg(short = 'L', value_name = "[BIND:]PORT:HOST:HOSTPORT")]
    local_forward: Vec<Forward>,
    /// Carry connections to PORT in the guest to HOST:HOSTPORT as seen from here
    #[arg(short = 'R', value_name = "PORT:HOST:HOSTPORT")]
    remote_forward: Vec<Forward>,
    /// Be a SOCKS5 proxy into the guest's network at PORT here
    #[arg(short = 'D', value_name = "[BIND:]PORT")]
    dynamic_forward: Vec<Socks>,
    /// No shell and no command: forward until Ctrl-C
    #[arg(short = 'N', long, conflicts_with_all = ["command", "tty"])]
    no_command: bool,
    #[command(flatten)]
    tty: TtyArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let tty = args.tty.choice().wanted();
    let (shell, agent) = (args.command.is_empty(), args.forward_agent);
    let image = Image::of(&mut client, op, &args.vm).await;
    let image = image.map_err(|error| error.about(&args.vm))?;
    let user = args.user.or_else(|| image.user());
    let forwards = Forwards {
        to_guest: args.local_forward,
        from_guest: args.remote_forward,
        socks: args.dynamic_forward,
        agent: args.forward_agent.then(own_agent).transpose()?,
    };
    let guest =
        Guest::dial_with(&mut client, op, &args.vm, user.as_deref(), !shell && !tty, forwards)
            .await;
    let mut guest = guest.map_err(|error| error.about(&args.vm))?;
    if args.no_command {
        return guest.stay(op, std::future::ready(Some(client))).await;
    }
    let what = if shell { image.shell() } else { What::Command(args.command) };
    let workdir = image.workdir();
    let task = Task { op, what, tty, env: vec![], workdir, timeout: None, input: true, agent };
    let ended = guest.run(task, async { app.client().await.ok() }).await;
    if shell && tty {
        super::guest_args::note_if_running(app, client, guest.vm_id()).await;
    }
    ended
}
