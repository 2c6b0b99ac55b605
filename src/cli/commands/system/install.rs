//! `banger system install`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueHint;

use super::host::{self, ROOT};
use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::setup::{Places, Systemd, Wish, install};

const AFTER: &str = "\
Examples:
  sudo ./banger system install --owner $USER      from a release's directory
  sudo banger system install --owner banger       for a user of its own, made if absent
  sudo banger system install                      again: mends, and adapts to /etc/banger/config.toml

The owner runs VMs with `banger`; nobody else but root reaches the daemon. VMs run on when the units
are restarted.";

/// Install banger on this host
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// The user who owns the VMs; made as a user of the system if there is none of that name
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    owner: Option<String>,
    /// Where programs go: DIR/bin and DIR/lib/banger [default: /usr/local, or the package's place]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    prefix: Option<PathBuf>,
    /// A program that VMs may run on; may be given more than once [default: those in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    vmm: Vec<PathBuf>,
    /// Firecracker's jailer [default: the one in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    jailer: Option<PathBuf>,
    /// Where the four programs are [default: beside this one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    from: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long the daemon may take until it serves
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse::duration)]
    limit: Duration,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    if !args.dry_run {
        host::need_root("system install")?;
    }
    let from = match args.from {
        Some(from) => from,
        None => host::own_directory()?,
    };
    let wish = Wish {
        owner: args.owner,
        prefix: args.prefix,
        vmm: args.vmm,
        jailer: args.jailer,
        from,
        dry: args.dry_run,
    };
    let systemd = Systemd::find();
    let mut lost = None;
    let record = install(Path::new(ROOT), systemd, &wish, &mut host::teller(app, &mut lost))?;
    if let Some(lost) = lost {
        return Err(lost);
    }
    if wish.dry {
        app.out.note("nothing was done: it was a dry run");
        return Ok(Exit::Ok);
    }
    if systemd == Systemd::Absent {
        app.out.note("systemd does not run here: the units start when it does");
        return Ok(Exit::Ok);
    }
    let (socket, _) = crate::setup::sockets(&Places::new(Path::new(ROOT), &record.prefix))?;
    let status = host::wait_for_daemon(systemd, &socket, &[], args.limit).await?;
    app.out
        .note(format!("bangerd {} serves {} at {}", status.version, record.owner, status.socket));
    Ok(Exit::Ok)
}
