//! `banger version`.

use serde::Serialize;

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::hello::DAEMON;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    protocol_min: u16,
    protocol_max: u16,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<Exit, CliError> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        protocol_min: DAEMON.min,
        protocol_max: DAEMON.max,
    };
    if args.json {
        app.out.json(&version)?;
    } else {
        app.out.line(format!("banger {}", version.version))?;
    }
    Ok(Exit::Ok)
}
