//! `banger system stop-guests`: what a unit runs when the host goes down.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::host;
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::cli::ui::text;
use crate::wire::reply::VmInfo;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  systemctl stop banger-guests      the same, by the unit that does it at a shutdown
  banger system stop-guests

on_shutdown in the configuration says whether VMs are stopped or suspended, shutdown_limit how long
all of them may take.";

/// A daemon that was killed is back by then.
const RETURN_LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);
/// All of a host's: most of the time goes by in the guests.
const AT_ONCE: usize = 256;

/// Stop or suspend all VMs, as when the host goes down
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// How long all of them may take; one that is not suspended after half of it is stopped
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse::duration)]
    limit: Duration,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    put_away(app, &app.socket, args.limit).await
}

/// All at once, a line for each as it ends. One that fails does not keep the others.
pub(crate) async fn put_away(app: &App, socket: &Path, limit: Duration) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = reach(socket).await.map_err(|error| error.of(op))?;
    let vms = host::vms_on(&mut client, op).await?;
    let began = Instant::now();
    app.out.line(format!("{} VMs to put away", vms.len()))?;
    let work = vms.iter().map(|vm| one(app, socket, vm, limit));
    let mut work = futures::stream::iter(work).buffer_unordered(AT_ONCE);
    let mut exits = vec![];
    while let Some((name, ended)) = work.next().await {
        let time = text::elapsed(began.elapsed());
        match ended {
            Ok(state) => {
                app.out.line(format!("{name}: {state} after {time}"))?;
                exits.push(Exit::Ok);
            }
            Err(error) => {
                app.failed(&error);
                exits.push(error.exit);
            }
        }
    }
    let time = text::elapsed(began.elapsed());
    let well = exits.iter().filter(|exit| **exit == Exit::Ok).count();
    app.out.line(format!("{well} of {} put away in {time}", vms.len()))?;
    Ok(Exit::of_many(&exits))
}

/// What became of it. One that cannot be suspended, or not in time, is stopped.
async fn one<'a>(
    app: &App,
    socket: &Path,
    vm: &'a VmInfo,
    limit: Duration,
) -> (&'a str, Result<String, CliError>) {
    let put = async {
        let half = limit / 2;
        let first = match timeout(half, ask(app, socket, vm, false)).await {
            Ok(Ok(state)) => return Ok(state),
            Ok(Err(error)) => error,
            Err(_) => CliError::failed(format!("not put away within {half:?}")),
        };
        app.failed(&first.about(&vm.name));
        let late = |_| Err(CliError::failed(format!("not stopped within {limit:?}")));
        timeout(half, ask(app, socket, vm, true)).await.unwrap_or_else(late)
    };
    let ended = put.await.map_err(|error: CliError| error.about(&vm.name));
    (&vm.name, ended)
}

async fn ask(app: &App, socket: &Path, vm: &VmInfo, stop: bool) -> Result<String, CliError> {
    let op = app.op(Some(&vm.name))?;
    let mut client = reach(socket).await.map_err(|error| error.of(op))?;
    let request = Request::PutAwayVm { vm: vm.id.clone(), stop };
    let board = Progress::silent(&app.out);
    let mut track = board.track(None);
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Leave).await?;
    Ok(ended.vm.map_or_else(|| "stopped".to_owned(), |vm| vm.state))
}

async fn reach(socket: &Path) -> Result<Client, CliError> {
    let until = Instant::now() + RETURN_LIMIT;
    loop {
        match Client::connect(socket).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
