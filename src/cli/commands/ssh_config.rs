//! `banger ssh-config`: whether stock OpenSSH knows of the VMs, and that it does.

use std::io;

use serde::Serialize;

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::openssh::{Block, Places, replace, settings};
use crate::cli::socket;

const AFTER: &str = "\
Examples:
  banger ssh-config --install     then: ssh web.vm, scp f web.vm:, rsync, sftp, git, Ansible
  banger ssh-config               whether it is installed, and where
  banger ssh-config --uninstall

It writes one block of three lines at the top of ~/.ssh/config, which includes a file of its own.
The user is root unless you name another; keys and host keys are known and never asked about.";

/// Let stock ssh, scp, sftp and rsync reach VMs as NAME.vm
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Add the block to ~/.ssh/config, or renew it
    #[arg(long, conflicts_with = "uninstall")]
    install: bool,
    /// Take it out again; all other lines stay
    #[arg(long)]
    uninstall: bool,
    /// Print the state as JSON
    #[arg(long, conflicts_with_all = ["install", "uninstall"])]
    json: bool,
}

#[derive(Debug, Serialize)]
struct State {
    installed: bool,
    /// False if what is included is missing or of another installation.
    current: bool,
    config: String,
    include: String,
    hosts: String,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<Exit, CliError> {
    let places = Places::find()
        .ok_or_else(|| CliError::failed("HOME is not set, so there is no ~/.ssh/config"))?;
    let text = read(&places.config)?;
    let block = Block::find(&text).map_err(|error| {
        CliError::from_error(places.config.display(), &error)
            .hint("mend it by hand: its lines are those between `# >>> banger` and `# <<< banger`")
    })?;
    if args.install {
        let changed = write(&places.settings, &ours(app, &places)?)?;
        let added = write(&places.config, &block.with(&places.settings))?;
        app.out.note(match (block.is_there(), added || changed) {
            (false, _) => format!("{}: added; try ssh NAME.vm", places.config.display()),
            (true, true) => format!("{}: renewed", places.config.display()),
            (true, false) => format!("{}: is as it should be", places.config.display()),
        });
        return Ok(Exit::Ok);
    }
    if args.uninstall {
        if block.is_there() {
            write(&places.config, &block.without())?;
        }
        remove(&places)?;
        app.out.note(match block.is_there() {
            true => format!("{}: removed", places.config.display()),
            false => format!("{}: nothing of banger's in it", places.config.display()),
        });
        return Ok(Exit::Ok);
    }
    let current = read(&places.settings)? == ours(app, &places)?;
    let state = State {
        installed: block.is_there(),
        current,
        config: places.config.display().to_string(),
        include: places.settings.display().to_string(),
        hosts: places.of_hosts().display().to_string(),
    };
    show(app, &state, args.json)
}

fn show(app: &App, state: &State, json: bool) -> Result<Exit, CliError> {
    if json {
        app.out.json(state)?;
        return Ok(Exit::Ok);
    }
    let word = match (state.installed, state.current) {
        (true, true) => "installed",
        (true, false) => "installed, but not by this banger: run it with --install again",
        (false, _) => "not installed: banger ssh-config --install",
    };
    app.out.line(word)?;
    if state.installed {
        app.out.line(format!("{} includes {}", state.config, state.include))?;
    }
    Ok(Exit::Ok)
}

/// The file for this program and, if another than the usual one was named, for this socket.
fn ours(app: &App, places: &Places) -> Result<Vec<u8>, CliError> {
    let banger = std::env::current_exe()
        .map_err(|error| CliError::from_error("find this program", &error))?;
    let named = (app.socket != socket::default_path()).then_some(app.socket.as_path());
    Ok(settings(&banger, named, places.of_hosts()))
}

/// What is not there is empty.
fn read(path: &std::path::Path) -> Result<Vec<u8>, CliError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        read => read.map_err(|error| CliError::from_error(path.display(), &error)),
    }
}

fn write(path: &std::path::Path, text: &[u8]) -> Result<bool, CliError> {
    replace(path, text)
        .map_err(|error| CliError::from_error(format!("write {}", path.display()), &error))
}

/// Ours alone: the file that was included and what was told of VMs.
fn remove(places: &Places) -> Result<(), CliError> {
    for removed in
        [std::fs::remove_file(&places.settings), std::fs::remove_dir_all(places.of_hosts())]
    {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CliError::from_error("remove what is banger's", &error));
            }
            _ => {}
        }
    }
    Ok(())
}
