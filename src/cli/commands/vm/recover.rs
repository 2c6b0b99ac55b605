//! `banger vm recover`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::wire::reply::DiagnosisInfo;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger vm recover web            what is wrong with it, and what would be done
  banger vm recover web --yes      do it
  banger vm recover web --json | jq -r .action

Whatever is done, its disks stay: what a guest wrote is there when it is started again. A VM in
error is cleaned up, its disks are checked, and it is left stopped.

Exit status: 0 if nothing is wrong, or it was done; 1 if something is wrong or could not be done.";

/// Say what is wrong with a VM and how to leave it, or do it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Do it, not only tell
    #[arg(long, short)]
    yes: bool,
    /// Print JSON: what was found
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let about = |error: CliError| error.about(&args.vm);
    let found = client.diagnosis(op, &args.vm).await.map_err(about)?;
    if args.json {
        app.out.json(&found)?;
    } else if !app.out.quiet {
        print(app, &found, args.yes)?;
    }
    let well = found.action == "none";
    if !args.yes || well {
        return Ok(if well { Exit::Ok } else { Exit::Failed });
    }
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::RecoverVm { vm: args.vm.clone() };
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Leave).await;
    drop(track);
    let ended = ended.map_err(|broken| about(broken.into()))?;
    if let Some(why) = ended.unchanged() {
        app.out.note(format!("{}: {why}", args.vm));
    }
    let state = ended.vm.map_or_else(|| "done".to_owned(), |vm| vm.state);
    if !args.json {
        app.out.line(format!("{}: {state}", found.name))?;
    }
    Ok(Exit::Ok)
}

fn print(app: &App, found: &DiagnosisInfo, yes: bool) -> Result<(), CliError> {
    found.found.iter().try_for_each(|line| app.out.line(line))?;
    if !found.steps.is_empty() {
        app.out.line(if yes { "to be done:" } else { "`--yes` would:" })?;
        for (n, step) in (1..).zip(&found.steps) {
            app.out.line(format!("  {n}. {step}"))?;
        }
    }
    if let Some(exit) = &found.exit {
        let then = if found.steps.is_empty() { "the way out" } else { "afterwards, or instead" };
        app.out.line(format!("{then}: {exit}"))?;
    }
    Ok(())
}
