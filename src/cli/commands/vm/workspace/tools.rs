//! The tools that a repository names. In a guest that has mise its files are believed, for their owner
//! has sent them, and what they name can be installed there, by a job, so that the guest has its log.
//! In a guest that has none nothing is done.

use std::time::Instant;

use banger_agent::contract::job::JobState;

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Forwards, Guest};
use crate::cli::ui::text;
use crate::host::workspace::Plan;
use crate::model::OpId;

const FILES: [&[u8]; 7] = [
    b".config/mise.toml",
    b".config/mise/config.toml",
    b".mise.toml",
    b".mise/config.toml",
    b".tool-versions",
    b"mise.toml",
    b"mise/config.toml",
];
/// Where mise may be: an image's own, or where its installer puts it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/root/.local/bin";

/// Those of the repository's files that name tools.
fn files(plan: &Plan) -> Vec<&[u8]> {
    let paths = plan.manifest.files.iter().map(|file| file.path.as_slice());
    paths.filter(|path| FILES.contains(path)).collect()
}

/// Refused before there is a VM that could not fetch what is to be installed in it.
pub(crate) fn check_way_out(plan: &Plan, has_nat: bool) -> Result<(), CliError> {
    match files(plan).first() {
        Some(file) if !has_nat => {
            let file = String::from_utf8_lossy(file);
            let what = format!("{file} names tools, which a VM without NAT cannot fetch");
            let failure = CliError::usage(what).hint("let it reach the internet: --nat");
            Err(failure.hint("or install none: --no-bootstrap"))
        }
        _ => Ok(()),
    }
}

/// Failure is none: the files may be looked at by whoever needs them.
pub(crate) async fn trust(client: &mut Client, op: OpId, vm: &str, guest_path: &str, plan: &Plan) {
    let files = files(plan);
    if files.is_empty() {
        return;
    }
    let Ok(mut guest) = dial(client, op, vm).await else { return };
    for file in files {
        let file = format!("{guest_path}/{}", String::from_utf8_lossy(file));
        let argv = ["mise", "trust", "--quiet", &file].map(str::to_owned);
        match guest.run_quietly(op, argv.into(), environment(&guest)).await {
            Some(Exit::Guest(0)) => {}
            // There is none, or it knows no trust.
            _ => return,
        }
    }
}

/// `wait`: until they are; else it goes on by itself.
pub(crate) async fn install(
    app: &App,
    client: &mut Client,
    vm: &str,
    guest_path: &str,
    plan: &Plan,
    wait: bool,
) -> Result<(), CliError> {
    if files(plan).is_empty() {
        return Ok(());
    }
    let (op, began) = (app.op(Some(vm))?, Instant::now());
    let mut guest = dial(client, op, vm).await?;
    let argv = ["mise", "install"].map(str::to_owned).to_vec();
    let env = environment(&guest);
    let id = match guest.start_job(op, argv, env, Some(guest_path.to_owned()), None).await {
        Ok(id) => id,
        Err(error) if error.exit == Exit::Guest(127) => return Ok(()),
        Err(error) => return Err(error.of(op)),
    };
    let log = format!("banger vm logs -f --job {id} {vm}");
    if !wait {
        app.out.note(format!("mise installs the repository's tools in the background: {log}"));
        return Ok(());
    }
    app.out.note(format!("mise installs the repository's tools: {log}"));
    let state = guest.await_job(op, id).await.map_err(|error| error.of(op))?;
    let took = text::elapsed(began.elapsed());
    let how = match state {
        JobState::Exited(0) => {
            app.out.note(format!("the repository's tools are installed after {took}"));
            return Ok(());
        }
        JobState::Exited(code) => format!("ended with status {code}"),
        JobState::Killed(signal) => format!("died of signal {signal}"),
        JobState::Running | JobState::Lost => "was lost".to_owned(),
    };
    let failure = CliError::failed(format!("{vm}: mise install {how}; the VM runs")).of(op);
    Err(failure.hint(format!("why? {log}")).hint("without tools: --no-bootstrap"))
}

/// By SSH, for there is more than one thing to do.
async fn dial(client: &mut Client, op: OpId, vm: &str) -> Result<Guest, CliError> {
    Guest::dial_with(client, op, vm, None, false, Forwards::default()).await
}

/// The VM's own PATH has the first word.
fn environment(guest: &Guest) -> Vec<(String, String)> {
    let own = guest.env().iter().find(|(name, _)| name == "PATH");
    let path = own.map_or_else(|| PATH.to_owned(), |(_, own)| format!("{own}:{PATH}"));
    vec![("PATH".to_owned(), path)]
}
