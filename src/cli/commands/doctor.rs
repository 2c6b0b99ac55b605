//! `banger doctor`: what only the CLI can see, then what the daemon sees. Changes nothing.

use crate::cli::app::App;
use crate::cli::client::{Client, ConnectError};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::CYAN;
use crate::cli::ui::text;
use crate::wire::reply::CheckInfo;

const AFTER: &str = "\
Exit status: 1 if anything is FAIL. WARN means: it works, but not as well as it could.";

/// Check this host and the daemon
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut checks = vec![];
    match Client::connect(&app.socket).await {
        Ok(mut client) => {
            checks.push(check("socket", "pass", app.socket.display(), None));
            let version = format!("version {}", client.protocol());
            checks.push(check("protocol", "pass", version, None));
            match client.checks(op).await {
                Ok(found) => checks.extend(found),
                Err(error) => checks.push(failed("daemon", error)),
            }
        }
        Err(error) => {
            let reached = matches!(error, ConnectError::Version { .. });
            if reached {
                checks.push(check("socket", "pass", app.socket.display(), None));
            }
            let name = if reached { "protocol" } else { "socket" };
            checks.push(failed(name, error.into()));
        }
    }
    if args.json {
        app.out.json(&checks)?;
    } else {
        print(app, &checks)?;
    }
    let bad = checks.iter().any(|check| check.verdict == "fail");
    Ok(if bad { Exit::Failed } else { Exit::Ok })
}

fn check(
    name: &str,
    verdict: &str,
    detail: impl std::fmt::Display,
    hint: Option<String>,
) -> CheckInfo {
    let (name, verdict) = (name.to_owned(), verdict.to_owned());
    CheckInfo { name, verdict, detail: detail.to_string(), hint }
}

fn failed(name: &str, error: CliError) -> CheckInfo {
    let hint = (!error.hints.is_empty()).then(|| error.hints.join("; "));
    check(name, "fail", error.message, hint)
}

fn print(app: &App, checks: &[CheckInfo]) -> Result<(), CliError> {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in checks.iter().filter(|check| !app.out.quiet || check.verdict != "pass") {
        let verdict =
            app.out.paint(text::state_style(&check.verdict), check.verdict.to_uppercase());
        app.out.line(format!("{verdict}  {:<width$}  {}", check.name, check.detail).trim_end())?;
        if let Some(hint) = &check.hint {
            let indent = " ".repeat(6 + width + 2);
            app.out.line(format!("{indent}{} {hint}", app.out.paint(CYAN, "hint:")))?;
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    match (count("fail"), count("warn")) {
        (0, 0) => app.out.note("all is well"),
        (0, warn) => app.out.note(format!("{warn} of {} could be better", checks.len())),
        (fail, _) => app.out.note(format!("{fail} of {} failed", checks.len())),
    }
    Ok(())
}
