//! `banger vm workspace status`.

use clap_complete::ArgValueCandidates;
use serde::Serialize;

use super::enter::look;
use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::manifests;
use crate::cli::ui::{table, text};
use crate::model::{Staleness, show_path};
use crate::wire::reply::WorkspaceInfo;

const AFTER: &str = "\
Examples:
  banger vm workspace status web
  banger vm workspace status web --json | jq -r .state

What was sent is compared with the repository as it is now: HEAD, index, files. Whether git calls
them dirty does not matter. The VM need not run.

Exit status: 0 clean, 1 stale or unknown, 4 if nothing was prepared.";

/// Tell what is prepared in a VM and whether the repository has changed since
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Field names are stable.
#[derive(Serialize)]
struct Shown<'a> {
    /// `clean`, `stale`, `unknown`.
    state: &'static str,
    why: String,
    head: Option<String>,
    modified: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
    untracked: Vec<String>,
    workspace: &'a WorkspaceInfo,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let known = client.workspaces(op, vec![args.vm.clone()]).await;
    let Some(info) = known.map_err(|error| error.about(&args.vm))?.pop() else {
        let vm = &args.vm;
        let failure = CliError::new(Exit::NotFound, format!("{vm}: nothing was prepared in it"));
        return Err(failure.hint(format!("banger vm workspace prepare {vm} PATH")).of(op));
    };
    let manifest = manifests::of(&mut client, op, &info).await?;
    let compared = look(&info, manifest).await?;
    let (state, exit) = match &compared.staleness {
        Staleness::Clean => ("clean", Exit::Ok),
        Staleness::Stale { .. } => ("stale", Exit::Failed),
        Staleness::Unknown(_) => ("unknown", Exit::Failed),
    };
    if args.json {
        let paths = |paths: &[Vec<u8>]| paths.iter().map(|path| show_path(path)).collect();
        let drift = match &compared.staleness {
            Staleness::Stale { drift, .. } => drift.clone(),
            _ => Default::default(),
        };
        app.out.json(&Shown {
            state,
            why: compared.staleness.to_string(),
            head: compared.head.clone(),
            modified: paths(&drift.modified),
            added: paths(&drift.added),
            removed: paths(&drift.removed),
            untracked: paths(&drift.untracked),
            workspace: &info,
        })?;
        return Ok(exit);
    }
    let files = format!("{}, {}", info.files, text::size(info.bytes));
    let branch = info.branch.clone().unwrap_or_else(|| "-".to_owned());
    let mut pairs = vec![
        ("state", compared.staleness.to_string()),
        ("guest path", info.guest_path.clone()),
        ("host path", info.host_path.clone()),
        ("mode", info.mode.clone()),
        ("head", info.head.clone()),
        ("branch", branch),
        ("files", files),
        ("prepared", text::ago(clock::unix_ms(), info.prepared_unix_ms)),
    ];
    if let Staleness::Stale { head, drift } = &compared.staleness {
        pairs.extend(head.iter().map(|head| ("moved", head.to_string())));
        pairs.extend(drift.lines().into_iter().map(|line| ("differs", line)));
    }
    table::pairs(&app.out, pairs)?;
    Ok(exit)
}
