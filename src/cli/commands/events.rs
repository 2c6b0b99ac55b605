//! `banger events`.

use std::time::Duration;

use clap_complete::ArgValueCandidates;

use super::parse;
use crate::cli::app::App;
use crate::cli::client::{Client, lost};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::DIM;
use crate::cli::ui::text;
use crate::cli::ui::transfers::Seen;
use crate::cli::{clock, complete};
use crate::model::OpId;
use crate::wire::frame::FrameError;
use crate::wire::reply::{EventInfo, EventKindInfo, Reply};
use crate::wire::request::{EventsOf, Request, Since};

const AFTER: &str = "\
Examples:
  banger events                        what the daemon remembers
  banger events -f                     and then whatever happens
  banger events --since 10m --vm web   the last ten minutes of one VM
  banger events -f --since 812 --json  for programs: a JSON object per line

Every event has a number, without gaps, also over restarts of the daemon: a program that has
seen 811 goes on with --since 812. With -f a daemon that goes away is waited for, and nothing
is missed or told twice. The daemon keeps the last 100000 events (`events_kept` in [limits]);
when earlier ones were asked for, `forgotten` names the first that there is.";

const RETURN_PAUSE: Duration = Duration::from_millis(200);

/// Print events of VMs and operations
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Go on printing as they happen
    #[arg(long, short)]
    follow: bool,
    /// Begin with this number, or at this time: 10m (ago), 2026-11-23T20:15:00Z
    #[arg(long, value_name = "SEQ|TIME", value_parser = since, default_value = "0",
          hide_default_value = true)]
    since: Since,
    /// Only of this VM, also after it is gone
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::vms))]
    vm: Option<String>,
    /// Only of this operation
    #[arg(long, value_name = "OP", add = ArgValueCandidates::new(complete::ops))]
    op: Option<String>,
    /// Print a JSON object per line
    #[arg(long)]
    json: bool,
}

/// A number is a sequence number, anything else a time: so long ago, or a date.
fn since(text: &str) -> Result<Since, String> {
    if let Ok(seq) = text.parse() {
        return Ok(Since::Seq(seq));
    }
    let unix_ms = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
    if let Ok(ago) = parse::duration(text) {
        return Ok(Since::UnixMs(clock::unix_ms().saturating_sub(parse::millis(ago))));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::UnixMs(unix_ms(time)));
    }
    let local = text.parse::<jiff::civil::DateTime>().ok();
    let zoned = local.and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()).ok());
    let wrong = || {
        format!("{text:?} is neither a number nor a time; write 812, 10m or 2026-11-23T20:15:00Z")
    };
    zoned.map(|time| Since::UnixMs(unix_ms(time.timestamp()))).ok_or_else(wrong)
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let Args { follow, since, vm, op: of, json } = args;
    let mut asked = EventsOf { since, vm, op: of, follow };
    ask(&mut client, op, &asked).await.map_err(|error| lost(&error))?;
    loop {
        let event = match client.receive().await {
            Ok(Reply::Event(event)) => event,
            Ok(Reply::Done(_)) => return Ok(Exit::Ok),
            Ok(Reply::Failed(failure)) => return Err(failure.into()),
            Ok(Reply::Accepted { .. }) => continue,
            Ok(other) => return Err(CliError::unexpected("events", &other)),
            Err(error) if !follow || matches!(error, FrameError::Codec(_)) => {
                return Err(lost(&error));
            }
            Err(_) => {
                app.out.note("lost the daemon; waiting for it to come back");
                while client.reconnect().await.is_err()
                    || ask(&mut client, op, &asked).await.is_err()
                {
                    tokio::time::sleep(RETURN_PAUSE).await;
                }
                continue;
            }
        };
        if event.seq > 0 {
            asked.since = Since::Seq(event.seq + 1);
        }
        if json { app.out.json_line(&event)? } else { app.out.line(line(app, &event))? }
    }
}

async fn ask(client: &mut Client, op: OpId, asked: &EventsOf) -> Result<(), FrameError> {
    client.send(op, None, &Request::EventsOf(asked.clone())).await
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
        E::Lost { count } => format!("{count} events were lost"),
        E::Transfer { blob, number, of, bytes, size_bytes, bytes_per_second, left_ms } => {
            let (number, of, bytes, size) = (*number, *of, *bytes, *size_bytes);
            let (bytes_per_second, left_ms) = (*bytes_per_second, *left_ms);
            Seen { blob, number, of, bytes, size, bytes_per_second, left_ms }.line()
        }
        E::Forgotten { first } => format!("earlier events are kept no more; the first is {first}"),
    }
}
