//! `banger gc`.

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::output::YELLOW;
use crate::cli::ui::progress::Progress;
use crate::cli::ui::table::{Cell, Table};
use crate::cli::ui::text;
use crate::wire::reply::GarbageInfo;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger gc                 what is there that should not be, what is not that should, and why
  banger gc --yes           deal with it
  banger gc --json | jq -r '.[] | select(.acts) | .kind + \" \" + .name'

banger writes a row into its ledger before it makes anything of the host: taps, rules, processes,
cgroups, devices, files. Here ledger and host are compared both ways. Only what carries banger's
names or marks counts, and nothing that a running VM or operation holds. Looking changes nothing.
Whoever owns a thing looks again before it goes: its VM, the pool of taps, or the store of images.

Exit status: 0, also if something was found; 1 if with --yes something could not be dealt with.";

/// Compare the host with the ledger; take away what is nobody's
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Do it, not only tell
    #[arg(long, short)]
    yes: bool,
    /// Print JSON: what was found
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    // Asked for again by its id, what it finds by now is not what it found.
    let found = client.garbage(op).await?;
    if args.json {
        app.out.json(&found)?;
    } else {
        print(app, &found)?;
    }
    let to_do = found.iter().filter(|one| one.acts).count();
    if !args.yes {
        tell(app, to_do, found.len());
        return Ok(Exit::Ok);
    }
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::CollectGarbage;
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Leave).await;
    drop(track);
    let ended = ended?;
    match ended.unchanged() {
        Some(why) => app.out.note(why),
        None => app.out.note(format!("done; `banger ops show {op}` has the steps")),
    }
    Ok(Exit::Ok)
}

fn print(app: &App, found: &[GarbageInfo]) -> Result<(), CliError> {
    if found.is_empty() {
        return Ok(());
    }
    if app.out.quiet {
        let acting = found.iter().filter(|one| one.acts);
        let lines = acting.map(|one| format!("{} {}", one.kind, one.name));
        return lines.into_iter().try_for_each(|line| app.out.line(line));
    }
    let mut table = Table::new(["KIND", "NAME", "VM", "IS", "BECAUSE", "WOULD"]);
    for one in found {
        let would =
            if one.acts { Cell::styled(&one.would, YELLOW) } else { one.would.as_str().into() };
        let vm = one.vm.as_deref().or_else(|| one.vm_id.as_deref().map(text::short));
        table.row([
            one.kind.as_str().into(),
            one.name.as_str().into(),
            vm.unwrap_or_default().into(),
            one.amiss.as_str().into(),
            one.why.as_str().into(),
            would,
        ]);
    }
    table.print(&app.out)
}

fn tell(app: &App, to_do: usize, all: usize) {
    match (to_do, all) {
        (_, 0) => app.out.note("ledger and host agree"),
        (0, all) => app.out.note(format!("{all} found; none is for gc to deal with")),
        (to_do, _) => {
            app.out.note(format!(
                "{to_do} to deal with; nothing was changed: `banger gc --yes` does it"
            ));
        }
    }
}
