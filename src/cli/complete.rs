//! Completion of names that only the daemon knows. The shell's script calls `banger` with a variable
//! set; nothing here runs otherwise. A daemon that does not answer at once completes nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;

use super::args::Cli;
use super::client::Client;
use super::error::CliError;
use super::exit::Exit;
use super::{clock, socket};
use crate::wire::request::Request;

/// Set by the shell's script alone; the crate's default, `COMPLETE`, may be anybody's.
pub(crate) const VARIABLE: &str = "BANGER_COMPLETE";
const LIMIT: Duration = Duration::from_millis(500);

pub(crate) fn asked() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

pub(crate) fn answer() -> Exit {
    let cwd = std::env::current_dir().ok();
    let env = CompleteEnv::with_factory(Cli::command).var(VARIABLE);
    match env.try_complete(std::env::args_os(), cwd.as_deref()) {
        Ok(_) => Exit::Ok,
        Err(error) => {
            drop(error.print());
            Exit::Failed
        }
    }
}

pub(crate) fn vms() -> Vec<CompletionCandidate> {
    names(async |mut client: Client| {
        let vms = client.vms(clock::new_op_id()?).await?;
        Ok(vms.into_iter().map(|vm| (vm.name, vm.state)).collect())
    })
}

pub(crate) fn images() -> Vec<CompletionCandidate> {
    names(async |mut client: Client| {
        let images = client.images(clock::new_op_id()?, Request::ListImages).await?;
        Ok(images.into_iter().map(|image| (image.name, image.source)).collect())
    })
}

pub(crate) fn kernels() -> Vec<CompletionCandidate> {
    names(async |mut client: Client| {
        let kernels = client.kernels(clock::new_op_id()?, Request::ListKernels).await?;
        Ok(kernels.into_iter().map(|kernel| (kernel.name, kernel.version)).collect())
    })
}

pub(crate) fn ops() -> Vec<CompletionCandidate> {
    names(async |mut client: Client| {
        let ops = client.ops(clock::new_op_id()?, Request::ListOps { limit: 50 }).await?;
        let named = |op: crate::wire::reply::OpInfo| (op.id, format!("{} {}", op.kind, op.subject));
        Ok(ops.into_iter().map(named).collect())
    })
}

/// Names with what distinguishes them, or nothing.
fn names(
    ask: impl AsyncFnOnce(Client) -> Result<Vec<(String, String)>, CliError>,
) -> Vec<CompletionCandidate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return vec![] };
    let found = runtime.block_on(async {
        let found = async { ask(Client::connect(&socket_path()).await?).await };
        tokio::time::timeout(LIMIT, found).await
    });
    let candidate = |(name, help): (String, String)| {
        CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into()))
    };
    found.ok().and_then(Result::ok).unwrap_or_default().into_iter().map(candidate).collect()
}

/// The one named on the line that is being completed, else as always.
fn socket_path() -> PathBuf {
    let words: Vec<_> = std::env::args_os().collect();
    let after = words.windows(2).find(|pair| pair[0] == "--socket").map(|pair| pair[1].clone());
    let joined = words
        .iter()
        .find_map(|word| word.to_str()?.strip_prefix("--socket=").map(std::ffi::OsString::from));
    let variable = || std::env::var_os("BANGER_SOCKET").filter(|path| !path.is_empty());
    after.or(joined).or_else(variable).map_or_else(socket::default_path, PathBuf::from)
}
