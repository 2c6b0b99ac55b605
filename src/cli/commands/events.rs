//! `banger events`.

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::DIM;
use crate::cli::ui::text;
use crate::wire::reply::{EventInfo, EventKindInfo, Reply};
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger events             what the daemon still remembers
  banger events -f          and then whatever happens
  banger events -f --json   a JSON object per line, for programs";

/// Print events of VMs and operations
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Go on printing as they happen
    #[arg(long, short)]
    follow: bool,
    /// Begin with this sequence number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    since: u64,
    /// Print a JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let request = Request::Events { since: args.since, follow: args.follow };
    client.send(op, None, &request).await.map_err(|error| crate::cli::client::lost(&error))?;
    loop {
        match client.stream().await? {
            Reply::Event(event) if args.json => app.out.json_line(&event)?,
            Reply::Event(event) => app.out.line(line(app, &event))?,
            Reply::Done(_) => return Ok(Exit::Ok),
            Reply::Accepted { .. } => {}
            other => return Err(CliError::unexpected("events", &other)),
        }
    }
}

/// `12:03:05.120  op-0193…  vm-start web  step lease-tap done in 1 ms`.
pub(super) fn line(app: &App, event: &EventInfo) -> String {
    let time = app.out.paint(DIM, text::local_time(event.unix_ms, false));
    let of = event.op_id.as_deref().or(event.vm_id.as_deref()).unwrap_or("-");
    format!("{time}  {}  {}", app.out.paint(DIM, of), describe(&event.kind))
}

fn describe(kind: &EventKindInfo) -> String {
    use EventKindInfo as E;
    match kind {
        E::OpStarted { op, subject } => format!("{op} {subject} began"),
        E::StepStarted { step } => format!("{step} began"),
        E::StepDone { step, elapsed_us } => {
            let time = std::time::Duration::from_micros(*elapsed_us);
            format!("{step} done in {}", text::elapsed(time))
        }
        E::StepFailed { step, cause } => format!("{step} failed: {cause}"),
        E::StepUndone { step } => format!("{step} undone"),
        E::OpEnded { outcome } => format!("ended: {outcome}"),
        E::VmChanged { name, state } => format!("{name} is {state}"),
        E::VmExited { name, how, expected: true } => format!("{name} ended: {how}"),
        E::VmExited { name, how, expected: false } => format!("{name} died: {how}"),
        E::ActorRebuilt { actor, incarnation } => {
            format!("{actor} was rebuilt (incarnation {incarnation})")
        }
        E::ActorQuarantined { actor } => format!("{actor} fails too often and was set aside"),
        E::Progress { text } | E::Note { text } => text.clone(),
        E::Missed { count } => format!("{count} events were missed"),
    }
}
