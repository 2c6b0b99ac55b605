//! `banger vm list` and `banger ps`.

use serde::Serialize;

use super::upkeep;
use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::table::{Cell, Table};
use crate::cli::ui::text;
use crate::wire::reply::{UpkeepInfo, VmInfo, WorkspaceInfo};

/// List all VMs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Examples:
  banger ps
  banger ps -aq                              ids of all VMs
  banger ps --json | jq -r '.[].address'";

/// List running VMs
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct PsArgs {
    /// Those that do not run, too
    #[arg(long, short)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    print(app, true, args.json).await
}

pub(crate) async fn ps(app: &App, args: PsArgs) -> Result<Exit, CliError> {
    print(app, args.all, args.json).await
}

async fn print(app: &App, all: bool, json: bool) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let mut vms = client.vms(op).await?;
    vms.retain(|vm| all || vm.state == "running");
    // A daemon of before does not know of it.
    let upkeep = client.upkeep(op, vec![]).await.unwrap_or_default();
    let workspaces = client.workspaces(op, vec![]).await.unwrap_or_default();
    if json {
        let row = |vm: &'_ VmInfo| Listed {
            vm: vm.clone(),
            upkeep: upkeep.iter().find(|upkeep| upkeep.id == vm.id),
            workspace: workspaces.iter().find(|workspace| workspace.id == vm.id),
        };
        app.out.json(&vms.iter().map(row).collect::<Vec<_>>())?;
    } else if app.out.quiet {
        vms.iter().try_for_each(|vm| app.out.line(text::short(&vm.id)))?;
    } else {
        table(&vms, &upkeep, &workspaces).print(&app.out)?;
    }
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    vm: VmInfo,
    upkeep: Option<&'a UpkeepInfo>,
    workspace: Option<&'a WorkspaceInfo>,
}

fn table(vms: &[VmInfo], upkeep: &[UpkeepInfo], workspaces: &[WorkspaceInfo]) -> Table {
    let now = clock::unix_ms();
    let header =
        ["ID", "NAME", "STATE", "IMAGE", "IP", "VCPU", "MEM", "DISK", "WORKSPACE", "CREATED"];
    let mut table = Table::new(header);
    for vm in vms {
        let upkeep = upkeep.iter().find(|upkeep| upkeep.id == vm.id);
        let workspace = workspaces.iter().find(|workspace| workspace.id == vm.id);
        table.row([
            text::short(&vm.id).into(),
            vm.name.as_str().into(),
            Cell::styled(upkeep::state(vm, upkeep, now), text::state_style(&vm.state)),
            vm.image.as_str().into(),
            vm.address.as_str().into(),
            vm.vcpu.to_string().into(),
            format!("{} MiB", vm.memory_mib).into(),
            text::size(vm.disk_bytes).into(),
            workspace.map_or("", |workspace| workspace.guest_path.as_str()).into(),
            text::ago(now, vm.created_unix_ms).into(),
        ]);
    }
    table
}
