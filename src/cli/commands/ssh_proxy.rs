//! `banger ssh-proxy`: what `ssh NAME.vm` runs to reach a guest, see `banger ssh-config`. It tells
//! ssh the VM's keys first, and then carries bytes.

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest;
use crate::cli::openssh::{DOMAIN, Places, known_host, replace};
use crate::model::OpId;
use crate::wire::reply::EndpointInfo;

/// Carry an SSH connection to a running VM
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The VM's name, as it is or below .vm
    #[arg(value_name = "HOST")]
    host: String,
    /// Only tell ssh the keys, and never fail: what is wrong is told when it connects
    #[arg(long)]
    prepare: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let name = args.host.strip_suffix(DOMAIN).and_then(|name| name.strip_suffix('.'));
    let name = name.unwrap_or(&args.host);
    if args.prepare {
        drop(prepare(app, &args.host, name).await);
        return Ok(Exit::Ok);
    }
    let (mut client, op, endpoint) = prepare(app, &args.host, name).await?;
    guest::carry(&mut client, op, endpoint).await
}

/// Where the guest is, when its keys are where ssh looks for them.
async fn prepare(
    app: &App,
    host: &str,
    name: &str,
) -> Result<(Client, OpId, EndpointInfo), CliError> {
    let op = app.op(Some(name))?;
    let mut client = app.client().await?;
    let endpoint = client.endpoint(op, name).await.map_err(|error| error.about(name))?;
    if let Some(places) = Places::find() {
        let known = known_host(host, &endpoint.host_key);
        for (path, text) in
            [(places.key(host), &endpoint.client_private), (places.known_hosts(host), &known)]
        {
            replace(&path, text.as_bytes()).map_err(|error| {
                CliError::from_error(format!("write {}", path.display()), &error)
            })?;
        }
    }
    Ok((client, op, endpoint))
}
