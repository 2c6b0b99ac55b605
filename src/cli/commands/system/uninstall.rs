//! `banger system uninstall`.

use std::path::Path;
use std::time::Duration;

use super::host::{self, ROOT};
use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::setup::{Places, Record, Systemd, installed, left_running, purge, remove, sockets};

const AFTER: &str = "\
Examples:
  sudo banger system uninstall            VMs, images and configuration stay for the next install
  sudo banger system uninstall --purge    nothing stays

It refuses while VMs run; with --force it stops them first, as when the host goes down.";

/// For all VMs.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Remove units and programs; data stays
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Remove VMs, images, kernels, configuration and logs, too, for good
    #[arg(long)]
    purge: bool,
    /// Stop VMs that run
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    host::need_root("system uninstall")?;
    let systemd = Systemd::find();
    let mut lost = None;
    let known = match installed(Path::new(ROOT)) {
        Ok(known) => Some(known),
        // What an uninstallation without a purge left.
        Err(_) if args.purge => None,
        Err(error) => return Err(error.into()),
    };
    if let Some((places, record)) = &known {
        no_vm_runs(app, places, record, args.force).await?;
        remove(places, systemd, &mut host::teller(app, &mut lost))?;
    }
    if args.purge {
        let none = Places::new(Path::new(ROOT), Path::new(ROOT));
        let places = known.map_or(none, |(places, _)| places);
        purge(&places, &mut host::teller(app, &mut lost))?;
    }
    Ok(Exit::Ok)
}

async fn no_vm_runs(
    app: &App,
    places: &Places,
    record: &Record,
    force: bool,
) -> Result<(), CliError> {
    let (socket, _) = sockets(places)?;
    let op = app.op(None)?;
    let Ok(mut client) = Client::connect(&socket).await else {
        let stranded = left_running(record)?;
        if stranded == 0 {
            return Ok(());
        }
        let what = format!("{stranded} processes of VMs run, and the daemon does not answer");
        return Err(CliError::failed(what).hint("start it: systemctl start bangerd"));
    };
    let on = host::vms_on(&mut client, op).await?;
    let Some(first) = on.first() else { return Ok(()) };
    if !force {
        let what = format!("{} VMs run ({}, …)", on.len(), first.name);
        return Err(CliError::failed(what).hint("stop them, or banger system uninstall --force"));
    }
    super::stop_guests::put_away(app, &socket, STOP_LIMIT).await?;
    match host::vms_on(&mut client, op).await?.first() {
        None => Ok(()),
        Some(vm) => Err(CliError::failed(format!("{} does not stop", vm.name))
            .hint(format!("banger vm kill {}", vm.name))),
    }
}
