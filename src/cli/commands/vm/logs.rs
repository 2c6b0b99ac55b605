//! `banger vm logs`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::client::lost;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::Guest;
use crate::wire::reply::{EventInfo, EventKindInfo, Reply};
use crate::wire::request::{LogSource, Logs, Request};

const AFTER: &str = "\
Examples:
  banger vm logs web
  banger vm logs -f -n 20 web
  banger vm logs --source vmm web     why the VMM does not start
  banger vm logs -f --job 1 web       what `vm exec --detach` started, to its end

On Firecracker a VM has a console only if it was created with --console.";

/// Print a VM's console, also when it has stopped or failed, or what a job in it wrote
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Go on printing as it grows
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many lines
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<u32>,
    /// What a background job wrote instead; see vm jobs
    #[arg(long, value_name = "ID", conflicts_with_all = ["tail", "source"])]
    job: Option<u32>,
    /// serial: the guest's console; vmm: what the VMM itself said
    #[arg(long, value_enum, value_name = "SOURCE", default_value = "serial")]
    source: Source,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Source {
    Serial,
    Vmm,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    if let Some(id) = args.job {
        let guest = Guest::dial(&mut client, op, &args.vm, true).await;
        let mut guest = guest.map_err(|error| error.about(&args.vm))?;
        guest.job_output(op, id, args.follow).await?;
        return Ok(Exit::Ok);
    }
    let source = match args.source {
        Source::Serial => LogSource::Serial,
        Source::Vmm => LogSource::Vmm,
    };
    let vm = args.vm.clone();
    let request = Request::Logs(Logs { vm, source, tail: args.tail, follow: args.follow });
    client.send(op, None, &request).await.map_err(|error| lost(&error))?;
    loop {
        match client.stream().await.map_err(|error| error.about(&args.vm))? {
            Reply::Bytes(bytes) => app.out.raw(&bytes)?,
            Reply::Event(EventInfo { kind: EventKindInfo::Note { text }, .. }) => {
                app.out.note(text);
            }
            Reply::Accepted { .. } | Reply::Event(_) => {}
            Reply::Done(_) => return Ok(Exit::Ok),
            other => return Err(CliError::unexpected("a log", &other)),
        }
    }
}
