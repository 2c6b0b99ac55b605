//! Finishes an operation that a crash cut short.
//!
//! The phase in progress decides: what builds up is undone, what tears down goes on to its end.
//! Phases after it are not begun: whoever asked is gone, and a VM that was to be started is better
//! left stopped than started behind somebody's back.

use super::runner::Run;
use super::{Direction, Finished, Journal, Plan, RunError, StepCx};
use crate::model::{Code, Entry, Failure, Outcome, Progress, StepStatus};

const INTERRUPTED: &str = "interrupted";

pub async fn recover(
    plan: &Plan,
    cx: &StepCx,
    journal: &mut dyn Journal,
    history: &[Entry],
) -> Result<Finished, RunError> {
    let mut run = Run::new(plan, cx, journal);
    for entry in history {
        let Some(at) = run.steps.iter().position(|step| step.name() == entry.step) else {
            return Err(RunError::UnknownStep(entry.step.clone()));
        };
        run.progress[at].apply(entry)?;
    }
    recall(&run, cx);
    let open = (0..plan.len()).find(|phase| {
        run.progress[run.range(*phase)].iter().any(|step| step.status != StepStatus::Done)
    });
    let Some(phase) = open else { return Ok(run.finished(Outcome::Done, None)) };
    let range = run.range(phase);
    let begun =
        run.progress[range.clone()].iter().any(|step| step.status != StepStatus::NotStarted);
    // The intent of a teardown is durable: an operation that begins with one is carried out.
    let goes_on = plan[phase].direction == Direction::Forward && (begun || phase == 0);
    if goes_on {
        let ended = run.phases(phase..phase + 1).await?;
        let whole = phase + 1 == plan.len() || ended.outcome != Outcome::Done;
        return Ok(if whole { ended } else { not_begun(&run, phase + 1) });
    }
    if !begun {
        return Ok(not_begun(&run, phase));
    }
    let steps = &run.progress[range.clone()];
    let failed = steps.iter().rposition(|step| step.error.is_some());
    let last = steps.iter().rposition(|step| step.status != StepStatus::NotStarted);
    let at = range.start + failed.or(last).unwrap_or(0);
    let cause = run.progress[at].error.clone();
    let failure = match &cause {
        Some(cause) => Failure::new(Code::Host, cause.clone()),
        None => interrupted(run.steps[at].name()),
    };
    run.back(range, at, cause.unwrap_or_else(|| INTERRUPTED.to_owned()), failure).await
}

/// What the lost process knew of the steps that are done.
fn recall(run: &Run<'_>, cx: &StepCx) {
    for (step, Progress { status, output, .. }) in run.steps.iter().zip(&run.progress) {
        if let (StepStatus::Done, Some(output)) = (status, output) {
            step.recall(cx, output);
        }
    }
}

fn not_begun(run: &Run<'_>, phase: usize) -> Finished {
    let step = run.steps[run.range(phase).start].name();
    let outcome = Outcome::RolledBack { step: step.to_owned(), cause: INTERRUPTED.to_owned() };
    run.finished(outcome, Some(interrupted(step)))
}

fn interrupted(step: &str) -> Failure {
    let message = format!("the daemon ended before step {step} was done");
    let failure = Failure::new(Code::Cancelled, message).hint("ask for it again");
    Failure { retryable: true, ..failure }
}
