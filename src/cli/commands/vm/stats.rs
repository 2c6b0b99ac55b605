//! `banger vm stats`.

use std::time::Duration;

use clap_complete::ArgValueCandidates;
use serde::Serialize;

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::table::{Cell, Table};
use crate::cli::ui::text;
use crate::model::OpId;
use crate::wire::reply::StatsInfo;

/// Between the two looks that a share of CPU time is told from.
const SPAN: Duration = Duration::from_millis(500);
const REFRESH: Duration = Duration::from_secs(2);
/// Cursor to the upper left corner, then everything behind it away.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

const AFTER: &str = "\
Examples:
  banger vm stats                       all VMs that run
  banger vm stats --watch web db
  banger vm stats --json | jq '.[] | {name, cpu_percent, resident_bytes}'

CPU is of one CPU: a guest that keeps two busy shows 200 %. MEM is what of the guest's memory and
the VMM's own is in RAM. ROOT and WORK are what the sparse disks take on the host, with the blocks that
a root shares with its image. NET and BLOCK are in/out and read/written by the guest since its
start, where the VMM counts them: Firecracker does, QEMU does not.";

/// Print what VMs take of the host: CPU, memory, disk
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Names, ids or unique prefixes of ids; all that run if none is given
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vms: Vec<String>,
    /// Go on every two seconds until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Print JSON; with --watch a line each time
    #[arg(long)]
    json: bool,
}

/// What the daemon counted, and the share of CPU time that only two looks tell.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    info: StatsInfo,
    /// Of one CPU.
    cpu_percent: Option<f64>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(args.vms.first().map(String::as_str))?;
    let mut client = app.client().await?;
    let mut before = look(&mut client, op, &args.vms).await?;
    let mut pause = SPAN;
    loop {
        // Nobody's share is to be told: a second look would only take time.
        if args.watch || before.iter().any(|info| info.cpu_us.is_some()) {
            tokio::time::sleep(pause).await;
        }
        let now = look(&mut client, op, &args.vms).await?;
        let rows: Vec<Row> = now.iter().map(|info| row(&before, info)).collect();
        print(app, &args, &rows)?;
        if !args.watch {
            return Ok(Exit::Ok);
        }
        (before, pause) = (now, REFRESH);
    }
}

async fn look(client: &mut Client, op: OpId, vms: &[String]) -> Result<Vec<StatsInfo>, CliError> {
    let asked = client.stats(op, vms.to_vec()).await;
    asked.map_err(|error| match vms {
        [only] => error.about(only),
        _ => error,
    })
}

fn row(before: &[StatsInfo], now: &StatsInfo) -> Row {
    let earlier = before.iter().find(|info| info.id == now.id && info.pid == now.pid);
    Row { info: now.clone(), cpu_percent: earlier.and_then(|earlier| percent(earlier, now)) }
}

/// None without two counters of one process and some time between them.
fn percent(earlier: &StatsInfo, now: &StatsInfo) -> Option<f64> {
    let used_us = now.cpu_us?.checked_sub(earlier.cpu_us?)?;
    let passed_ms = now.collected_unix_ms.checked_sub(earlier.collected_unix_ms)?;
    if passed_ms == 0 {
        return None;
    }
    // In thousandths, which are whole numbers small enough for any float.
    let thousandths = used_us.saturating_mul(100) / passed_ms;
    u32::try_from(thousandths).ok().map(|thousandths| f64::from(thousandths) / 1000.0)
}

fn print(app: &App, args: &Args, rows: &[Row]) -> Result<(), CliError> {
    match (args.json, args.watch) {
        (true, true) => app.out.json_line(&rows),
        (true, false) => app.out.json(&rows),
        (false, watch) => {
            if watch && app.out.stdout_is_terminal {
                app.out.raw(CLEAR)?;
            }
            table(rows).print(&app.out)
        }
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(["NAME", "STATE", "CPU", "MEM", "OF", "ROOT", "WORK", "NET", "BLOCK"]);
    for Row { info, cpu_percent } in rows {
        let pair = |(a, b): (u64, u64)| format!("{}/{}", amount(a), amount(b));
        let devices = info.devices.as_ref();
        let net = devices.map(|devices| (devices.net_in_bytes, devices.net_out_bytes));
        let block = devices.map(|devices| (devices.disk_read_bytes, devices.disk_written_bytes));
        table.row([
            info.name.as_str().into(),
            Cell::styled(info.state.as_str(), text::state_style(&info.state)),
            cpu_percent.map(|percent| format!("{percent:.1}%")).unwrap_or_default().into(),
            info.resident_bytes.map(amount).unwrap_or_default().into(),
            amount(u64::from(info.memory_mib) << 20).into(),
            amount(info.root_disk_bytes).into(),
            amount(info.work_disk_bytes).into(),
            net.map(pair).unwrap_or_default().into(),
            block.map(pair).unwrap_or_default().into(),
        ]);
    }
    table
}

/// `512K`, `3.2M`, `1.5G`: to be read, not to be counted with.
fn amount(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut unit = 0;
    // In tenths of the unit.
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match (tenths / 10, tenths % 10) {
        (whole, tenth) if whole < 10 && tenth > 0 => format!("{whole}.{tenth}{name}"),
        (whole, _) => format!("{whole}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(pid: u32, at_ms: u64, cpu_us: u64) -> StatsInfo {
        StatsInfo {
            id: "a".into(),
            name: "web".into(),
            state: "running".into(),
            collected_unix_ms: at_ms,
            vcpu: 2,
            memory_mib: 512,
            pid: Some(pid),
            cpu_us: Some(cpu_us),
            resident_bytes: None,
            cgroup_bytes: None,
            root_disk_bytes: 0,
            work_disk_bytes: 0,
            devices: None,
        }
    }

    #[test]
    fn a_share_is_of_one_cpu_and_of_one_process() {
        let share = |before, now| row(&[before], &now).cpu_percent;
        assert_eq!(share(info(7, 1000, 0), info(7, 1500, 250_000)), Some(50.0));
        assert_eq!(share(info(7, 1000, 5), info(7, 2000, 2_000_005)), Some(200.0));
        assert_eq!(share(info(7, 1000, 0), info(8, 2000, 50_000)), None, "another process");
        assert_eq!(share(info(7, 1000, 0), info(7, 1000, 0)), None, "no time has passed");
        assert_eq!(share(info(7, 2000, 9), info(7, 1000, 5)), None, "a clock that went back");
        let stopped = StatsInfo { cpu_us: None, pid: None, ..info(0, 2000, 0) };
        assert_eq!(share(stopped.clone(), stopped), None);
    }

    #[test]
    fn amounts_read_well() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (3_355_444, "3.2M"),
            (64 << 20, "64M"),
            (3 << 29, "1.5G"),
            (u64::MAX, "16777215T"),
        ] {
            assert_eq!(amount(bytes), text, "{bytes}");
        }
    }
}
