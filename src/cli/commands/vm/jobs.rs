//! `banger vm jobs`: what was started in a VM with `vm exec --detach`.

use banger_agent::contract::job::{JobInfo, JobState};
use clap_complete::ArgValueCandidates;
use serde::Serialize;

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::Guest;
use crate::cli::output::{GREEN, RED};
use crate::cli::ui::table::{Cell, Table};
use crate::cli::ui::text;
use crate::cli::{clock, complete};

const AFTER: &str = "\
Examples:
  banger vm exec --detach web -- make world
  banger vm jobs web
  banger vm logs -f --job 1 web
  banger vm exec web -- kill 4711              its PID is in the table

The guest keeps the last 100 jobs and the last 16 MiB of what each wrote. A job ends with its VM.";

/// List the background jobs of a running VM
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    id: u32,
    state: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
    pid: u32,
    user: &'a str,
    started_unix_ms: u64,
    ended_unix_ms: Option<u64>,
    command: &'a [String],
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.vm))?;
    let mut client = app.client().await?;
    let guest = Guest::dial(&mut client, op, &args.vm, true).await;
    let mut guest = guest.map_err(|error| error.about(&args.vm))?;
    let jobs = guest.jobs(op).await?;
    if args.json {
        app.out.json(&jobs.iter().map(row).collect::<Vec<_>>())?;
    } else if app.out.quiet {
        jobs.iter().try_for_each(|job| app.out.line(job.id))?;
    } else {
        table(&jobs).print(&app.out)?;
    }
    Ok(Exit::Ok)
}

fn row(job: &JobInfo) -> Row<'_> {
    let (state, exit_code, signal) = match job.state {
        JobState::Running => ("running", None, None),
        JobState::Exited(code) => ("exited", Some(code), None),
        JobState::Killed(signal) => ("killed", None, Some(signal)),
        JobState::Lost => ("lost", None, None),
    };
    Row {
        id: job.id,
        state,
        exit_code,
        signal,
        pid: job.pid,
        user: &job.user,
        started_unix_ms: job.started_unix_ms,
        ended_unix_ms: job.ended_unix_ms,
        command: &job.argv,
    }
}

fn table(jobs: &[JobInfo]) -> Table {
    let now = clock::unix_ms();
    let mut table = Table::new(["ID", "STATE", "PID", "USER", "STARTED", "TOOK", "COMMAND"]);
    for job in jobs {
        let state = match job.state {
            JobState::Running => Cell::styled("running", GREEN),
            JobState::Exited(0) => "exited 0".into(),
            JobState::Exited(code) => Cell::styled(format!("exited {code}"), RED),
            JobState::Killed(signal) => Cell::styled(format!("killed {signal}"), RED),
            JobState::Lost => Cell::styled("lost", RED),
        };
        let ended = match (&job.state, job.ended_unix_ms) {
            (JobState::Running, _) => text::elapsed_between(job.started_unix_ms, now),
            (_, Some(ended)) => text::elapsed_between(job.started_unix_ms, ended),
            (_, None) => String::new(),
        };
        let command: String =
            job.argv.join(" ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        table.row([
            job.id.to_string().into(),
            state,
            job.pid.to_string().into(),
            job.user.as_str().into(),
            text::ago(now, job.started_unix_ms).into(),
            ended.into(),
            command.into(),
        ]);
    }
    table
}
