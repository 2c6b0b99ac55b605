//! `banger vm run`: create, start, prepare a workspace, enter, and with `--rm` delete.
//!
//! ```text
//! CreateVm ──> (PATH) prepare ──> Endpoint ──> SSH ──> (--rm) DeleteVm
//!    │ Ctrl-C: CancelOp, then DeleteVm of what is left
//!    └ failed: the VM, if it got that far, stays for `vm logs`
//! ```

use std::path::PathBuf;
use std::time::Instant;

use super::guest_args::{self, TtyArgs};
use super::program::Image;
use super::spec::{self, SpecArgs};
use super::workspace::enter::Entered;
use super::workspace::prepare as prepare_command;
use super::workspace::source::{GUEST_PATH, Job, SourceArgs, check_guest_path};
use super::workspace::tools;
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::commands::image;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Forwards, Guest, Task, What};
use crate::cli::operation::{self, Broken, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::cli::ui::text;
use crate::host::workspace::Plan;
use crate::model::OpId;
use crate::wire::reply::VmInfo;
use crate::wire::request::{CreateVm, Request};

const AFTER: &str = "\
Examples:
  banger run --rm -- uname -a            one command in a throwaway VM
  banger run --image python:3.12 -- python -c 'print(1)'
  banger run                             a new VM and a shell in it
  banger run -d --name web --nat         start it and leave it alone
  banger run -d --restart always         back after a crash, and after a restart of the host
  banger run --rm -e TOKEN --memory 2G -- sh -c 'make test'
  banger run . -- make test              the repository here, in its VM, which stays for the next time
  banger run --rm ~/src/app -- make test the same in a VM of its own
  banger run --nat .                     a shell in it, with the tools that it names
  banger run --rm --image python         the program of an image of containers
  banger run --rm --image python -- python -c 'print(1)'

The words after -- reach the guest as they are, without a shell. In an image of containers they
follow its entrypoint, in place of its own words, as with docker run; --entrypoint '' drops that.
Without words the image's program runs, and with -d it runs from every start of the VM on, as a job. Without --rm the VM runs on.
Ctrl-C while it boots takes it back. With PATH the VM that has the repository is used again, if there
is one, and what changed since is brought there first. Where the guest has mise, it installs the
tools that the repository names: with -d before this ends, beside a shell while you are in it, for
a command as it needs them.

Exit status: the command's or the shell's; 128+N if signal N killed it, 126 or 127 if the guest
could not run or find it, 125 if banger itself failed, wrong usage included. With -d 0 once the
VM runs, else 125.";

/// The user's own shell, wherever it is started.
const LOGIN: [&str; 3] = ["sh", "-c", "exec \"${SHELL:-sh}\" -l"];

/// Create a VM and enter it or run a command in it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// A repository to work on: it is brought to the VM, and the command or the shell starts in it
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::DirPath)]
    path: Option<PathBuf>,
    /// The command and its arguments; the image's program, or a shell, if there is none
    #[arg(value_name = "CMD", last = true)]
    command: Vec<String>,
    /// Delete the VM when the command or the shell ends
    #[arg(long)]
    rm: bool,
    /// Start it, print its name and leave it running
    #[arg(long, short, conflicts_with_all = ["rm", "command"])]
    detach: bool,
    /// The user of the guest to run it as, or USER:GROUP, also by number [default: the image's, else
    /// root]
    #[arg(long, short, value_name = "USER", conflicts_with = "detach")]
    user: Option<String>,
    /// Directory in the guest to run it in [default: the repository, else the image's, else the
    /// user's home]
    #[arg(long, short, value_name = "DIR", conflicts_with = "detach")]
    workdir: Option<String>,
    /// Run this instead of the image's entrypoint; '' is none
    #[arg(long, value_name = "PROGRAM", conflicts_with = "detach")]
    entrypoint: Option<String>,
    #[command(flatten)]
    tty: TtyArgs,
    /// Where in the guest the repository goes
    #[arg(long, value_name = "DIR", default_value = GUEST_PATH, help_heading = "The repository")]
    guest_path: String,
    /// Print what of it is to be there and what would be removed, and do nothing
    #[arg(long, requires = "path", help_heading = "The repository")]
    dry_run: bool,
    /// Give up what was changed in the guest
    #[arg(long, requires = "path", help_heading = "The repository")]
    discard_guest: bool,
    /// Do not have the guest's mise install the tools that it names
    #[arg(long, requires = "path", help_heading = "The repository")]
    no_bootstrap: bool,
    #[command(flatten, next_help_heading = "The repository")]
    source: SourceArgs,
    #[command(flatten)]
    spec: SpecArgs,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let job = job(&args)?;
    // Before there is a VM: what is wrong here is told at once.
    let plan = job.as_ref().map(Job::plan).transpose()?;
    let op = app.op(args.spec.name())?;
    let name = args.spec.name().map(str::to_owned);
    let has_nat = args.spec.has_nat();
    let pull = args.spec.pull()?;
    // Nobody is there to run the image's program.
    let runs = args.detach && args.path.is_none();
    let create = args.spec.request(true, runs)?;
    if let (Some(job), Some(plan), true) = (&job, &plan, args.dry_run) {
        let of = match app.client().await {
            Ok(mut client) if !args.rm => {
                let known = known(&mut client, op, name, &create, plan).await.ok().flatten();
                known.map(|vm| (client, vm.id))
            }
            _ => None,
        };
        return prepare_command::list(app, job, plan, op, of, false).await;
    }
    let began = Instant::now();
    let mut client = app.client().await?;
    let known = match &plan {
        Some(plan) if !args.rm => known(&mut client, op, name, &create, plan).await?,
        _ => None,
    };
    // For whoever comes to stay, and to wait for if nobody does. A command has mise fetch what it needs.
    let bootstrap = (args.command.is_empty() && !args.no_bootstrap).then_some(args.detach);
    if let (Some(plan), None, Some(_)) = (&plan, &known, bootstrap) {
        tools::check_way_out(plan, has_nat)?;
    }
    let vm = match known {
        Some(vm) => again(app, &mut client, vm, &create).await?,
        None => {
            if let Some((image, when)) = pull {
                image::pull::pull(app, &mut client, &image, when).await?;
            }
            boot(app, &mut client, op, &create).await?
        }
    };
    let entered = match (job, plan) {
        (Some(job), Some(plan)) => match prepare(app, &mut client, &vm, job, plan, bootstrap).await
        {
            Ok(entered) => entered,
            Err(error) => {
                if args.rm {
                    clean_up(app, &mut client, &vm).await;
                }
                return Err(error);
            }
        },
        _ => Entered::default(),
    };
    if args.detach {
        spec::announce(app, &vm, began);
        app.out.line(&vm.name)?;
        return Ok(Exit::Ok);
    }
    let in_workspace = entered.directory.is_some();
    let image = Image::of(&mut client, op, &vm.id).await?;
    let argv = match (in_workspace, args.command.is_empty(), &args.entrypoint) {
        // Whoever comes to a repository comes to stay.
        (true, true, None) => vec![],
        (.., entrypoint) => image.argv(entrypoint.as_deref(), args.command),
    };
    let shell = argv.is_empty();
    let what = match (shell, in_workspace) {
        (false, _) => What::Command(entered.argv(argv)),
        (true, false) => image.shell(),
        // A login shell that does not start at home.
        (true, true) => What::Command(LOGIN.map(str::to_owned).into()),
    };
    let tty = args.tty.choice().wanted();
    // A workspace is root's.
    let user = args.user.or_else(|| image.user().filter(|_| !in_workspace));
    let workdir = args.workdir.or(entered.directory).or_else(|| image.workdir());
    let task =
        Task { op, what, tty, env: vec![], workdir, timeout: None, input: true, agent: false };
    // A guest that cannot be entered stays, with --rm too: its console tells why.
    let plain = !shell && !tty;
    let mut guest = match enter(app, &mut client, &vm, user.as_deref(), plain).await {
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
        clean_up(app, &mut client, &vm).await;
    } else {
        guest_args::note_if_running(app, client, &vm.id).await;
    }
    ended
}

fn job(args: &Args) -> Result<Option<Job>, CliError> {
    let Some(path) = &args.path else {
        if args.source.is_given() || args.guest_path != GUEST_PATH {
            let failure =
                CliError::usage("no PATH of a repository is named for the options of one");
            return Err(failure.hint("the one here: banger run . ..."));
        }
        return Ok(None);
    };
    check_guest_path(&args.guest_path)?;
    Ok(Some(Job {
        path: path.clone(),
        guest_path: args.guest_path.clone(),
        options: args.source.options(),
        discard: args.discard_guest,
    }))
}

/// The VM of that name, or, if none was given, the one that has the repository.
async fn known(
    client: &mut Client,
    op: OpId,
    name: Option<String>,
    create: &Request,
    plan: &Plan,
) -> Result<Option<VmInfo>, CliError> {
    let vm = match name {
        Some(name) => Some(name),
        None if !is_plain(create) => None,
        None => {
            let mut workspaces = client.workspaces(op, vec![]).await?;
            workspaces.retain(|one| std::path::Path::new(&one.host_path) == plan.repository.root);
            let latest = workspaces.into_iter().max_by_key(|one| one.prepared_unix_ms);
            latest.map(|workspace| workspace.id)
        }
    };
    let Some(vm) = vm else { return Ok(None) };
    match client.vm(op, &vm).await {
        Ok(vm) => Ok(Some(vm)),
        Err(error) if error.exit == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether nothing but a name was asked for.
fn is_plain(create: &Request) -> bool {
    let Request::CreateVm(create) = create else { return false };
    *create == CreateVm { name: create.name.clone(), start: true, ..CreateVm::default() }
}

/// A VM there is, running.
async fn again(
    app: &App,
    client: &mut Client,
    vm: VmInfo,
    create: &Request,
) -> Result<VmInfo, CliError> {
    let name = &vm.name;
    app.out.note(format!("{name} is used again"));
    if !is_plain(create) {
        app.out.note(format!("{name} stays as it is; what a new VM is to be means nothing to it"));
    }
    if vm.state == "running" {
        return Ok(vm);
    }
    let op = app.op(Some(name))?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::StartVm { vm: vm.id.clone() };
    let started = operation::run(client, op, &request, &mut track, OnInterrupt::Cancel).await;
    drop(track);
    let started = started.map_err(|broken| CliError::from(broken).about(name))?;
    Ok(started.vm.unwrap_or(vm))
}

/// `bootstrap`: install the repository's tools, and whether to wait for that.
async fn prepare(
    app: &App,
    client: &mut Client,
    vm: &VmInfo,
    job: Job,
    plan: Plan,
    bootstrap: Option<bool>,
) -> Result<Entered, CliError> {
    let op = app.op(Some(&vm.name))?;
    let (began, guest_path) = (Instant::now(), job.guest_path.clone());
    let report = job.run(app, client, op, &vm.name, Some(plan)).await;
    let report = report.map_err(|error| error.about(&vm.name).of(op))?;
    let sent = report.prepared;
    let (files, bytes) = (sent.sent_files, text::size(sent.sent_bytes));
    let took = text::elapsed(began.elapsed());
    app.out.note(format!("{guest_path} is prepared: {files} files, {bytes} sent in {took}"));
    if let Some(wait) = bootstrap {
        match tools::install(app, client, &vm.name, &guest_path, &report.plan, wait).await {
            Err(error) if wait => return Err(error),
            // Nobody is kept from the shell by it.
            Err(error) => app.failed(&error),
            Ok(()) => {}
        }
    }
    Ok(Entered { directory: Some(guest_path), under_mise: true, is_implied: false })
}

async fn clean_up(app: &App, client: &mut Client, vm: &VmInfo) {
    if let Err(error) = delete(app, client, &vm.id, &vm.name).await {
        app.failed(&error);
    }
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
    user: Option<&str>,
    plain: bool,
) -> Result<Guest, CliError> {
    let op = app.op(Some(&vm.name))?;
    let guest = Guest::dial_with(client, op, &vm.id, user, plain, Forwards::default()).await;
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
