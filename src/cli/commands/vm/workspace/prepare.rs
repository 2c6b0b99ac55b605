//! `banger vm workspace prepare`.

use std::path::PathBuf;
use std::time::Instant;

use clap_complete::ArgValueCandidates;
use serde::Serialize;

use super::source::{GUEST_PATH, Job, SourceArgs, check_guest_path, notices};
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::{table, text};
use crate::host::workspace::Plan;
use crate::model::{OpId, show_path};

const AFTER: &str = "\
Examples:
  banger vm workspace prepare web                   the repository here, to /root/repo
  banger vm workspace prepare web ~/src/app --include-untracked
  banger vm workspace prepare web --branch try --from v1.2
  banger vm workspace prepare web --dry-run         what would travel; no VM is touched

Tracked files travel as they are, uncommitted edits and the history with them. Again, only what has
changed does; what the guest has changed meanwhile is never overwritten, but told. What git ignores
in the guest, such as build output, stays. What was sent before and is not asked for any more, such
as untracked files without --include-untracked, is removed there, and a line says so.";

/// Bring a repository, with its history and uncommitted edits, into a running VM
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// The repository, or a directory in it
    #[arg(value_name = "PATH", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    path: PathBuf,
    /// Where in the guest
    #[arg(long, value_name = "DIR", default_value = GUEST_PATH)]
    guest_path: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Print the mode, what is to be there and what would be removed, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Give up what was changed in the guest
    #[arg(long)]
    discard_guest: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    check_guest_path(&args.guest_path)?;
    let job = Job {
        path: args.path,
        guest_path: args.guest_path,
        options: args.source.options(),
        discard: args.discard_guest,
    };
    let op = app.op(Some(&args.vm))?;
    let began = Instant::now();
    if args.dry_run {
        // Nobody needs to be there for it.
        let of = app.client().await.ok().map(|client| (client, args.vm));
        return list(app, &job, &job.plan()?, op, of, args.json).await;
    }
    let mut client = app.client().await?;
    let guest_path = job.guest_path.clone();
    let report =
        job.run(app, &mut client, op, &args.vm, None).await.map_err(|error| error.of(op))?;
    let (plan, prepared) = (report.plan, report.prepared);
    let shown = Shown {
        root: plan.repository.root.display().to_string(),
        guest_path,
        mode: plan.mode.as_str(),
        head: plan.commit.clone(),
        branch: plan.branch.clone(),
        files: prepared.files,
        bytes: prepared.bytes,
        sent_files: prepared.sent_files,
        sent_bytes: prepared.sent_bytes,
    };
    if args.json {
        app.out.json(&shown)?;
        return Ok(Exit::Ok);
    }
    let took = text::elapsed(began.elapsed());
    let pairs = [
        ("root", shown.root),
        ("guest path", shown.guest_path),
        ("mode", shown.mode.to_owned()),
        ("head", shown.head),
        ("branch", shown.branch.unwrap_or_else(|| "-".to_owned())),
        ("files", format!("{}, {}", shown.files, text::size(shown.bytes))),
        ("sent", format!("{}, {} in {took}", shown.sent_files, text::size(shown.sent_bytes))),
    ];
    table::pairs(&app.out, pairs)?;
    Ok(Exit::Ok)
}

/// Field names are stable.
#[derive(Serialize)]
struct Shown {
    root: String,
    guest_path: String,
    mode: &'static str,
    head: String,
    branch: Option<String>,
    files: u64,
    bytes: u64,
    sent_files: u64,
    sent_bytes: u64,
}

/// The exact list, and nothing else happens. `of`: whom to ask what is there already.
pub(crate) async fn list(
    app: &App,
    job: &Job,
    plan: &Plan,
    op: OpId,
    of: Option<(Client, String)>,
    json: bool,
) -> Result<Exit, CliError> {
    let last = match of {
        Some((mut client, vm)) => job.last(&mut client, op, &vm).await,
        None => None,
    };
    let shown = |path: &Vec<u8>| show_path(path);
    let files: Vec<_> = plan.manifest.files.iter().map(|file| shown(&file.path)).collect();
    let removed: Vec<_> = job.removed(plan, last.as_ref()).iter().map(shown).collect();
    if json {
        let (root, mode) = (plan.repository.root.display().to_string(), plan.mode.as_str());
        let shown = serde_json::json!({
            "root": root, "mode": mode, "files": files, "removed": removed
        });
        app.out.json(&shown)?;
    } else {
        let mut lines = format!("mode: {}\n", plan.mode.as_str());
        files.iter().for_each(|file| lines.extend([file, "\n"]));
        removed.iter().for_each(|file| lines.extend(["removed: ", file, "\n"]));
        app.out.raw(lines.as_bytes())?;
    }
    notices(app, plan);
    Ok(Exit::Ok)
}
