//! `banger vm show`.

use clap_complete::ArgValueCandidates;
use serde::Serialize;

use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::reply::{DiskInfo, LedgerInfo, UpkeepInfo, VmInfo, WorkspaceInfo};

const AFTER: &str = "\
Examples:
  banger vm show web
  banger vm show web | jq -r .address
  banger vm show web | jq .upkeep           policy, restarts so far, the next one
  banger vm show web | jq .ledger           what it holds of the host, and since when";

/// Print all that is known of a VM, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Print JSON, which is the only form there is
    #[arg(long = "json")]
    _json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let vm = client.vm(op, &args.vm).await.map_err(|error| error.about(&args.vm))?;
    // A daemon of before does not know of it.
    let disk = client.disk(op, &args.vm).await.ok();
    let ledger = client.ledger(op, &args.vm).await.ok();
    let one = vec![args.vm];
    let upkeep = client.upkeep(op, one.clone()).await.ok().and_then(|mut one| one.pop());
    let workspace = client.workspaces(op, one).await.ok().and_then(|mut one| one.pop());
    app.out.json(&Shown { vm: &vm, disk, upkeep, ledger, workspace })?;
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    vm: &'a VmInfo,
    disk: Option<DiskInfo>,
    upkeep: Option<UpkeepInfo>,
    /// What it holds of the host.
    ledger: Option<Vec<LedgerInfo>>,
    workspace: Option<WorkspaceInfo>,
}
