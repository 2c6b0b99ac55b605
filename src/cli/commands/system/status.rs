//! `banger system status`.

use serde::Serialize;

use super::host;
use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{GREEN, RED};
use crate::cli::ui::table::{self, Cell, Table};
use crate::setup::{Installed, Systemd, look};

const AFTER: &str = "\
Exit status: 1 if something is not as it should be; what it is is said at the end.";

/// Show how the installation does
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    installed: Installed,
    /// Of the running daemon and helper; null if they do not answer.
    daemon_version: Option<String>,
    helper_version: Option<String>,
    vms: Option<u32>,
    vms_running: Option<u32>,
    /// What is not as it should be.
    problems: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let here = host::here()?;
    let installed = look(&here.places, &here.record, Systemd::find())?;
    let mut problems = problems(&installed);
    let daemon = host::status(&here.socket).await;
    let helper = host::helper_status(&here.helper).await;
    if let Err(error) = &daemon {
        problems.push(format!("the daemon does not answer: {}", error.message));
    }
    if let Err(why) = &helper {
        problems.push(format!("the helper does not answer: {why}"));
    }
    let (daemon, helper) = (daemon.ok(), helper.ok());
    let status = Status {
        daemon_version: daemon.as_ref().map(|daemon| daemon.version.clone()),
        helper_version: helper.map(|helper| helper.version),
        vms: daemon.as_ref().map(|daemon| daemon.vms),
        vms_running: daemon.as_ref().map(|daemon| daemon.vms_running),
        installed,
        problems,
    };
    match args.json {
        true => app.out.json(&status)?,
        false => print(app, &status)?,
    }
    Ok(if status.problems.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn problems(installed: &Installed) -> Vec<String> {
    let mut problems = vec![];
    for unit in &installed.units {
        if unit.state != "active" {
            problems.push(format!("{} is {}", unit.name, unit.state));
        }
        if !unit.enabled {
            problems.push(format!("{} is not enabled: it will not start with the host", unit.name));
        }
        if unit.outdated {
            let name = &unit.name;
            problems
                .push(format!("{name} runs a program that was replaced: banger system restart"));
        }
    }
    for program in installed.programs.iter().filter(|program| program.version.is_none()) {
        problems.push(format!("{} is missing or does not run", program.path.display()));
    }
    for socket in installed.sockets.iter().filter(|socket| !socket.private) {
        let path = socket.path.display();
        problems.push(match (&socket.owner, &socket.mode) {
            (Some(owner), Some(mode)) => format!("{path} is {owner}'s with mode {mode}"),
            _ => format!("{path} is not there, or you may not see it"),
        });
    }
    problems
}

fn print(app: &App, status: &Status) -> Result<(), CliError> {
    let Status { installed, .. } = status;
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    let vms = match (status.vms, status.vms_running) {
        (Some(vms), Some(running)) => format!("{vms} ({running} running)"),
        _ => "-".to_owned(),
    };
    table::pairs(
        &app.out,
        [
            ("installed", format!("{} in {}", installed.version, installed.prefix.display())),
            ("owner", installed.owner.clone()),
            ("state", installed.state_dir.display().to_string()),
            ("daemon", version(&status.daemon_version)),
            ("helper", version(&status.helper_version)),
            ("vms", vms),
        ],
    )?;
    app.out.line("")?;
    let mut units = Table::new(["UNIT", "STATE", "BOOT", "PID", "RESTARTS", "STATUS"]);
    for unit in &installed.units {
        let style = if unit.state == "active" { GREEN } else { RED };
        units.row([
            unit.name.as_str().into(),
            Cell::styled(unit.state.clone(), style),
            if unit.enabled { "enabled" } else { "disabled" }.into(),
            unit.pid.map(|pid| pid.to_string()).unwrap_or_default().into(),
            unit.restarts.to_string().into(),
            unit.status.as_str().into(),
        ]);
    }
    units.print(&app.out)?;
    app.out.line("")?;
    let mut files = Table::new(["FILE", "VERSION", "OWNER", "MODE"]);
    for program in &installed.programs {
        let path = program.path.display().to_string();
        files.row([path.into(), version(&program.version).into(), Cell::from(""), "".into()]);
    }
    for socket in &installed.sockets {
        let path = socket.path.display().to_string();
        files.row([
            path.into(),
            "".into(),
            version(&socket.owner).into(),
            version(&socket.mode).into(),
        ]);
    }
    files.print(&app.out)?;
    for problem in &status.problems {
        app.out.note(format!("{} {problem}", app.out.err_paint(RED, "problem:")));
    }
    Ok(())
}
