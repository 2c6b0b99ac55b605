//! `banger vm run`: create, start, enter, and with `--rm` delete.
//!
//! ```text
//! CreateVm ──> Endpoint ──> SSH ──> (--rm) DeleteVm
//!    │ Ctrl-C: CancelOp, then DeleteVm of what is left
//!    └ failed: the VM, if it got that far, stays for `vm logs`
//! ```

use std::path::PathBuf;
use std::time::Instant;

use super::guest_args::{self, TtyArgs};
use super::spec::{self, SpecArgs};
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Guest, Task, What};
use crate::cli::operation::{self, Broken, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::model::OpId;
use crate::wire::reply::VmInfo;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger run --rm -- uname -a            one command in a throwaway VM
  banger run                             a new VM and a shell in it
  banger run -d --name web --nat         start it and leave it alone
  banger run -d --restart always         back after a crash, and after a restart of the host
  banger run --rm -e TOKEN --memory 2G -- sh -c 'make test'

The words after -- reach the guest as they are, without a shell. Without --rm the VM runs on.
Ctrl-C while it boots takes it back.

Exit status: the command's or the shell's; 128+N if signal N killed it, 126 or 127 if the guest
could not run or find it, 125 if banger itself failed, wrong usage included. With -d 0 once the
VM runs, else 125.";

/// Create a VM and enter it or run a command in it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Not in this release: a repository to take along
    #[arg(value_name = "PATH", hide = true)]
    path: Option<PathBuf>,
    /// The command and its arguments; a shell if there is none
    #[arg(value_name = "CMD", last = true)]
    command: Vec<String>,
    /// Delete the VM when the command or the shell ends
    #[arg(long)]
    rm: bool,
    /// Start it, print its name and leave it running
    #[arg(long, short, conflicts_with_all = ["rm", "command"])]
    detach: bool,
    #[command(flatten)]
    tty: TtyArgs,
    #[command(flatten)]
    spec: SpecArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    if let Some(path) = args.path {
        return Err(no_workspaces(&path));
    }
    let op = app.op(args.spec.name())?;
    let create = args.spec.request(true)?;
    let began = Instant::now();
    let mut client = app.client().await?;
    let vm = boot(app, &mut client, op, &create).await?;
    if args.detach {
        spec::announce(app, &vm, began);
        app.out.line(&vm.name)?;
        return Ok(Exit::Ok);
    }
    let shell = args.command.is_empty();
    let what = if shell { What::Shell } else { What::Command(args.command) };
    let tty = args.tty.choice().wanted();
    let task = Task { op, what, tty, env: vec![], workdir: None, timeout: None };
    // A guest that cannot be entered stays, with --rm too: its console tells why.
    let mut guest = match enter(app, &mut client, &vm, !shell && !tty).await {
        Ok(guest) => guest,
        Err(error) if args.rm && error.exit == Exit::Failed => {
            let name = &vm.name;
            return Err(
                error.hint(format!("{name} stays to be looked at: banger vm delete {name}"))
            );
        }
        Err(error) => return Err(error),
    };
    let ended = guest.run(task, async { app.client().await.ok() }).await;
    if args.rm {
        // Whatever it is that ended the command, Ctrl-C and a lost guest included.
        drop(guest);
        if let Err(error) = delete(app, &mut client, &vm.id, &vm.name).await {
            app.failed(&error);
        }
    } else {
        guest_args::note_if_running(app, client, &vm.id).await;
    }
    ended
}

fn no_workspaces(path: &std::path::Path) -> CliError {
    let path = path.display();
    CliError::usage(format!("{path}: a directory cannot be taken along yet; name no path"))
        .hint(format!("to run a command of that name in the guest: banger run -- {path}"))
        .hint("to copy files: tar -c . | banger exec VM -- tar -x -C /root")
}

async fn boot(
    app: &App,
    client: &mut Client,
    op: OpId,
    create: &Request,
) -> Result<VmInfo, CliError> {
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let booted = operation::run(client, op, create, &mut track, OnInterrupt::Cancel).await;
    drop(track);
    match booted {
        Ok(ended) => match ended.vm {
            Some(vm) => Ok(vm),
            None => Err(CliError::unexpected("the new VM", &ended.op)),
        },
        Err(Broken { error, vm_id: Some(vm_id), interrupted: true }) => {
            // Going back may leave a stopped VM; nobody will ask for it again.
            let deleted = delete(app, client, &vm_id, &vm_id).await;
            match deleted {
                Err(undeleted) if undeleted.exit != Exit::NotFound => app.failed(&undeleted),
                _ => {}
            }
            Err(*error)
        }
        Err(Broken { error, .. }) => Err(*error),
    }
}

async fn enter(
    app: &App,
    client: &mut Client,
    vm: &VmInfo,
    plain: bool,
) -> Result<Guest, CliError> {
    let op = app.op(Some(&vm.name))?;
    let guest = Guest::dial(client, op, &vm.id, plain).await;
    guest.map_err(|error| error.about(&vm.name))
}

/// By id: the name could be somebody else's by now.
async fn delete(app: &App, client: &mut Client, vm_id: &str, name: &str) -> Result<(), CliError> {
    let op = app.op(Some(name))?;
    let silent = Progress::silent(&app.out);
    let mut track = silent.track(None);
    let request = Request::DeleteVm { vm: vm_id.to_owned() };
    let deleted = operation::run(client, op, &request, &mut track, OnInterrupt::Leave).await;
    deleted.map(drop).map_err(|broken| CliError::from(broken).about(name))
}
