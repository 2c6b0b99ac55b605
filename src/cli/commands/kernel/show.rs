//! `banger kernel show`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::client::only;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::wire::request::Request;

/// Print all that is known of a kernel, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the kernel
    #[arg(add = ArgValueCandidates::new(complete::kernels))]
    name: String,
    /// Print JSON, which is the only form there is
    #[arg(long = "json")]
    _json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.name))?;
    let mut client = app.client().await?;
    let asked = client.kernels(op, Request::ShowKernel { name: args.name.clone() }).await;
    let kernel = asked.and_then(|kernels| only(kernels, "a kernel"));
    app.out.json(&kernel.map_err(|error| error.about(&args.name))?)?;
    Ok(Exit::Ok)
}
