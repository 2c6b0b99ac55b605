//! `banger kernel default`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger kernel default                 which it is, and who decided that
  banger kernel default debian-6.1      from now on
  banger kernel default --unset         the newest is it again

VMs that exist keep the kernel that they were made with. default_kernel_name in the daemon's
configuration wins, and then nothing else can be set. A default that is deleted is none any more.";

/// Print or set the kernel of VMs that name none
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the kernel that it is to be
    #[arg(add = ArgValueCandidates::new(complete::kernels))]
    name: Option<String>,
    /// Let the newest be it
    #[arg(long, conflicts_with = "name")]
    unset: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(args.name.as_deref())?;
    let request = match (args.name.clone(), args.unset) {
        (None, false) => Request::ShowDefaultKernel,
        (name, _) => Request::SetDefaultKernel { name },
    };
    let asked = app.client().await?.default_kernel(op, request).await;
    let default = asked.map_err(|error| match &args.name {
        Some(name) => error.about(name),
        None => error,
    })?;
    if args.json {
        app.out.json(&default)?;
        return Ok(Exit::Ok);
    }
    let Some(default) = default else {
        app.out.note("there is no kernel; `banger kernel import --help` tells how to get one");
        return Ok(Exit::Ok);
    };
    let why = match default.decided_by.as_str() {
        "configuration" => "default_kernel_name in the daemon's configuration",
        "newest" => "the newest, as none is set",
        _ => "set with `banger kernel default`",
    };
    app.out.note(match default.exists {
        true => why.to_owned(),
        false => format!("{why}; there is no such kernel"),
    });
    app.out.line(default.name)?;
    Ok(Exit::Ok)
}
