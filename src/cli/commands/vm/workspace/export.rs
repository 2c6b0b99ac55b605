//! `banger vm workspace export`.

use std::path::{Path, PathBuf};

use clap_complete::ArgValueCandidates;

use super::source::check_guest_path;
use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Guest, explain};
use crate::host::workspace::{Repository, Work};
use crate::model::show_path;

const AFTER: &str = "\
Examples:
  banger vm workspace export web > work.patch       for git apply
  banger vm workspace export web --stat
  banger vm workspace export web --apply            into the files here, all or nothing
  banger vm workspace export web --as-branch from-web

The patch holds what the guest committed, edited and added since it was prepared, and what was sent
uncommitted; nothing that git ignores. --apply takes only what the guest changed, and merges where the
file here has changed as well. The guest is only read, and here nothing is touched but what was asked
for.";

/// Bring what was done in the VM back: as a patch, into the files here, as a branch
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Where in the guest [default: where it was prepared]
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// What the patch is to apply to [default: the commit that was prepared]
    #[arg(long, value_name = "COMMIT", conflicts_with_all = ["apply", "as_branch"])]
    base_commit: Option<String>,
    /// Write the patch to a file
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["apply", "as_branch", "stat"])]
    output: Option<PathBuf>,
    /// Print how much of what files differs instead
    #[arg(long, conflicts_with_all = ["apply", "as_branch"])]
    stat: bool,
    /// Change the files of the repository here
    #[arg(long, conflicts_with = "as_branch")]
    apply: bool,
    /// Bring the guest's commits, as they are, to a branch of this name here
    #[arg(long, value_name = "NAME")]
    as_branch: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    if let Some(path) = &args.guest_path {
        check_guest_path(path)?;
    }
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let vm = args.vm.as_str();
    let known = client.workspaces(op, vec![vm.to_owned()]).await;
    let Some(info) = known.map_err(|error| error.about(vm))?.pop() else {
        let failure = CliError::new(Exit::NotFound, format!("{vm}: nothing was prepared in it"));
        return Err(failure.hint(format!("banger vm workspace prepare {vm} PATH")).of(op));
    };
    let told = |error| explain(vm, error).of(op);
    let repository = Repository::find(Path::new(&info.host_path)).map_err(told)?;
    let guest_path = args.guest_path.clone().unwrap_or(info.guest_path);
    let head = info.head;
    let guest = Guest::dial(&mut client, op, vm, true).await;
    let mut guest = guest.map_err(|error| error.about(vm))?;
    let fetch = |stream| crate::host::workspace::fetch(repository, &guest_path, &head, stream);
    let work = guest.converse(op, fetch).await.map_err(|error| error.of(op))?;
    drop(guest);
    if args.apply {
        return apply(app, &work).map_err(|error| error.of(op));
    }
    if let Some(branch) = &args.as_branch {
        let brought = work.branch(branch).map_err(told)?;
        app.out.line(&brought.head)?;
        app.out.note(format!("{branch}: {}", count(brought.commits, "commit")));
        match work.uncommitted() {
            0 => {}
            files => app.out.note(format!(
                "{} of the guest not in a commit or different from what was sent: see --stat",
                count(files as u64, "file")
            )),
        }
        return Ok(Exit::Ok);
    }
    let patch = work.patch(args.base_commit.as_deref()).map_err(told)?;
    match (&args.output, args.stat) {
        (_, true) => app.out.raw(&patch.stat)?,
        (None, false) => app.out.raw(&patch.bytes)?,
        (Some(file), false) => std::fs::write(file, &patch.bytes)
            .map_err(|error| CliError::from_error(file.display(), &error).of(op))?,
    }
    let (files, commits) = (count(patch.files as u64, "file"), count(patch.commits, "commit"));
    let base = patch.base.get(..7).unwrap_or(&patch.base);
    app.out.note(format!("{files} and {commits} past {base}"));
    Ok(Exit::Ok)
}

fn apply(app: &App, work: &Work) -> Result<Exit, CliError> {
    let applied = work.apply().map_err(|error| explain("NAME", error))?;
    for path in &applied.written {
        app.out.line(format!("written: {}", show_path(path)))?;
    }
    for path in &applied.removed {
        app.out.line(format!("removed: {}", show_path(path)))?;
    }
    match (applied.written.len() + applied.removed.len(), applied.merged) {
        (0, _) => app.out.note("the guest has changed nothing that is not here"),
        (_, 0) => {}
        (_, merged) => {
            app.out.note(format!("{} merged with changes here", count(merged as u64, "file")));
        }
    }
    Ok(Exit::Ok)
}

fn count(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
