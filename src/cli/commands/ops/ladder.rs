//! An operation step by step.

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::ui::table::{self, Cell, Table};
use crate::cli::ui::text;
use crate::wire::reply::{OpInfo, StepInfo};

pub(super) fn print(app: &App, op: &OpInfo) -> Result<(), CliError> {
    let took = op.ended_unix_ms.map(|end| text::elapsed_between(op.started_unix_ms, end));
    let mut pairs = vec![
        ("operation", op.id.clone()),
        ("kind", op.kind.clone()),
        ("subject", op.subject.clone()),
        ("started", text::local_time(op.started_unix_ms, true)),
        ("took", took.unwrap_or_else(|| "-".to_owned())),
        ("outcome", app.out.paint(text::state_style(&op.outcome), &op.outcome)),
    ];
    pairs.extend(op.step.clone().map(|step| ("at step", step)));
    pairs.extend(op.cause.clone().map(|cause| ("cause", cause)));
    pairs.extend(op.undo.clone().map(|undo| ("undo", undo)));
    table::pairs(&app.out, pairs)?;
    if op.steps.is_empty() {
        return Ok(());
    }
    app.out.line("")?;
    let mut ladder = Table::new(["STEP", "STATUS", "UNDO", "AT", "TOOK", "ERROR"]);
    for step in &op.steps {
        let at = step.started_unix_ms;
        let after = at.map(|at| format!("+{}", text::elapsed_between(op.started_unix_ms, at)));
        let took = at.zip(step.ended_unix_ms).map(|(at, end)| text::elapsed_between(at, end));
        let (done, undo) = halves(step);
        let error = step.error.as_deref().and_then(|error| error.lines().next());
        ladder.row([
            step.step.as_str().into(),
            Cell::styled(done, text::state_style(done)),
            Cell::styled(undo, text::state_style(undo)),
            after.unwrap_or_default().into(),
            took.unwrap_or_default().into(),
            error.unwrap_or_default().into(),
        ]);
    }
    ladder.print(&app.out)
}

/// How far the step got, and how far it was taken back.
fn halves(step: &StepInfo) -> (&str, &str) {
    let got = match (step.ended_unix_ms, &step.error) {
        (None, _) => "interrupted",
        (Some(_), None) => "done",
        (Some(_), Some(_)) => "failed",
    };
    match step.status.as_str() {
        undo @ ("undoing" | "undone") => (got, undo),
        // The error is the undo's.
        undo @ "undo-failed" => ("-", undo),
        status => (status, "-"),
    }
}
