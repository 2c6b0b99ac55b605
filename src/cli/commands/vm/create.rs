//! `banger vm create`.

use std::time::Instant;

use super::spec::{self, SpecArgs};
use crate::cli::app::App;
use crate::cli::commands::image;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;

const AFTER: &str = "\
Examples:
  banger vm create
  banger vm create --name web --vcpu 2 --memory 1G --nat
  banger vm create --name later --no-start
  banger vm create --image debian:bookworm    pulled from its registry if it is not here
  banger vm create --name odd --console       then: banger vm logs odd

Returns when the VM has booted and answers. Prints its name. Ctrl-C takes it back. If the image is
one of containers, its program runs from every start on, as a job: see vm jobs and vm logs --job.";

/// Create a VM and start it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: SpecArgs,
    /// Do not boot it
    #[arg(long)]
    no_start: bool,
    /// Print the VM as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(args.spec.name())?;
    let pull = args.spec.pull()?;
    let request = args.spec.request(!args.no_start, true)?;
    let began = Instant::now();
    let mut client = app.client().await?;
    if let Some((image, when)) = pull {
        image::pull::pull(app, &mut client, &image, when).await?;
    }
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Cancel).await?;
    drop(track);
    let Some(vm) = ended.vm else {
        return Err(CliError::unexpected("the new VM", &ended.op));
    };
    spec::announce(app, &vm, began);
    if args.json {
        app.out.json(&vm)?
    } else {
        app.out.line(&vm.name)?
    }
    Ok(Exit::Ok)
}
