//! Carries a plan out, or takes it back.
//!
//! The order is the whole point: an event is durable before the side effect it announces, so
//! after a crash the journal names every step that may have left something on the host. Where
//! there is nothing to be named (see `attempt`) the write and the step go side by side. That
//! a step has succeeded is written together with the start of the next, which costs one commit per
//! step; a crash in between finds the step running, and both its halves bear being repeated.
//! When the journal cannot be written the runner stops dead, because nothing may happen unrecorded;
//! whoever ran it goes on from what is durable once it can be written again.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::Instrument;

use super::{Direction, Journal, JournalLost, Plan, Step, StepCx, StepError};
use crate::model::{
    Code, Entry, EventKind, Failure, IllegalEvent, LedgerChange, LedgerRow, Outcome, Progress,
    ResourceKind, StepEvent, StepStatus, chain,
};

/// Tries before a failing undo, or a failing step of a teardown, makes the operation stuck.
const TRIES: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Journal(#[from] JournalLost),
    #[error("the journal makes no sense")]
    Illegal(#[from] IllegalEvent),
    #[error("the journal names a step this plan lacks: {0}")]
    UnknownStep(String),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub outcome: Outcome,
    /// For users; there is one unless the outcome is `Done`.
    pub failure: Option<Failure>,
}

pub async fn run(
    plan: &Plan,
    cx: &StepCx,
    journal: &mut dyn Journal,
) -> Result<Finished, RunError> {
    Run::new(plan, cx, journal).phases(0..plan.len()).await
}

pub(super) struct Run<'a> {
    plan: &'a Plan,
    cx: &'a StepCx,
    journal: &'a mut dyn Journal,
    pub(super) steps: Vec<&'a dyn Step>,
    pub(super) progress: Vec<Progress>,
    /// Known here and not yet durable; goes out with the next entry that must be.
    pending: Vec<Entry>,
    /// What goes out with them.
    ledger: Vec<LedgerChange>,
}

impl<'a> Run<'a> {
    pub(super) fn new(plan: &'a Plan, cx: &'a StepCx, journal: &'a mut dyn Journal) -> Self {
        let steps: Vec<_> =
            plan.iter().flat_map(|phase| &phase.steps).map(|step| &**step).collect();
        let progress = vec![Progress::default(); steps.len()];
        Self { plan, cx, journal, steps, progress, pending: vec![], ledger: vec![] }
    }

    /// Which steps a phase has, by their numbers in the whole plan.
    pub(super) fn range(&self, phase: usize) -> Range<usize> {
        let start = self.plan[..phase].iter().map(|phase| phase.steps.len()).sum();
        start..start + self.plan[phase].steps.len()
    }

    pub(super) async fn phases(&mut self, phases: Range<usize>) -> Result<Finished, RunError> {
        for phase in phases {
            let range = self.range(phase);
            let ended = match self.plan[phase].direction {
                Direction::Back => self.build_up(range).await?,
                Direction::Forward => self.tear_down(range).await?,
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
        self.flush().await?;
        Ok(self.finished(Outcome::Done, None))
    }

    async fn build_up(&mut self, range: Range<usize>) -> Result<Option<Finished>, RunError> {
        for at in range.clone() {
            if self.progress[at].status == StepStatus::Done {
                continue;
            }
            let result = if self.cx.cancel.is_cancelled() {
                Err(StepError::Cancelled)
            } else {
                self.attempt(at, Direction::Back, self.steps[at].has_effect()).await?
            };
            if let Err(error) = result {
                let failure = Failure::from(&error);
                return self.back(range, at, chain(&error), failure).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn tear_down(&mut self, range: Range<usize>) -> Result<Option<Finished>, RunError> {
        let first = range.start;
        for at in range {
            let mut tries = 0;
            while self.progress[at].status != StepStatus::Done {
                if tries > 0 {
                    self.flush().await?; // the failure is worth knowing during the pause
                    tokio::time::sleep(self.cx.settings.retry_pause).await;
                }
                tries += 1;
                match self.attempt(at, Direction::Forward, at == first).await? {
                    Err(error) if tries == TRIES => {
                        self.flush().await?;
                        let undo = format!("none: {TRIES} tries failed");
                        let failure = Failure::from(&error);
                        return Ok(Some(self.stuck(at, chain(&error), undo, failure)));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(None)
    }

    /// Undoes what the phase has touched, last step first.
    pub(super) async fn back(
        &mut self,
        range: Range<usize>,
        from: usize,
        cause: String,
        failure: Failure,
    ) -> Result<Finished, RunError> {
        for at in range.rev() {
            if self.progress[at].touched()
                && let Err(undo) = self.undo(at).await?
            {
                self.flush().await?;
                return Ok(self.stuck(at, cause, undo, failure));
            }
        }
        self.flush().await?;
        let step = self.steps[from].name().to_owned();
        Ok(self.finished(Outcome::RolledBack { step, cause }, Some(failure)))
    }

    /// The outer error is the journal's, the inner one the step's.
    ///
    /// `intent_first`: the step must not begin before the journal names it. What only looks or
    /// waits leaves nothing that a recovery would have to know of, and a teardown that has begun
    /// is done again from there whatever it got to; their writes go beside them. One that has nothing
    /// to wait for is done before a write could begin, and is written with what comes next.
    async fn attempt(
        &mut self,
        at: usize,
        direction: Direction,
        intent_first: bool,
    ) -> Result<Result<(), StepError>, RunError> {
        let (step, cx, span) = (self.steps[at], self.cx, self.span(at));
        self.push(at, StepEvent::Started)?;
        // Before the write, with which it becomes durable.
        (cx.watcher)(EventKind::StepStarted { step: step.name().to_owned() });
        let mut work = pin!(work(step, cx, direction).instrument(span));
        let (result, elapsed) = if intent_first {
            self.flush().await?;
            work.await
        } else {
            match futures::poll!(&mut work) {
                Poll::Ready(done) => done,
                Poll::Pending => {
                    let (written, done) = tokio::join!(self.flush(), work);
                    written?;
                    done
                }
            }
        };
        match result {
            Ok(output) => {
                step.recall(cx, &output);
                self.note_done(at, elapsed, &output);
                self.push(at, StepEvent::Succeeded(output))?;
                Ok(Ok(()))
            }
            Err(error) => {
                self.note_failed(at, elapsed, &error);
                self.push(at, StepEvent::Failed(chain(&error)))?;
                Ok(Err(error))
            }
        }
    }

    /// The outer error is the journal's, the inner one the last of the step's.
    async fn undo(&mut self, at: usize) -> Result<Result<(), String>, RunError> {
        let (step, cx) = (self.steps[at], self.cx);
        let mut tries = 0;
        loop {
            self.record(at, StepEvent::UndoStarted).await?;
            tries += 1;
            let work = bounded(step.undo(cx), cx.settings.step_limit);
            let Err(error) = work.instrument(self.span(at)).await else {
                self.push(at, StepEvent::UndoFinished)?;
                (cx.watcher)(EventKind::StepUndone { step: step.name().to_owned() });
                return Ok(Ok(()));
            };
            let cause = chain(&error);
            tracing::warn!(parent: &self.span(at), cause, tries, "undo failed");
            self.push(at, StepEvent::UndoFailed(cause.clone()))?;
            if tries == TRIES {
                return Ok(Err(cause));
            }
            self.flush().await?;
            tokio::time::sleep(cx.settings.retry_pause).await;
        }
    }

    fn stuck(&self, at: usize, cause: String, undo: String, failure: Failure) -> Finished {
        let (step, name) = (self.steps[at].name().to_owned(), &self.cx.vm.spec.name);
        let message = format!("{}; step {step} is stuck: {undo}", failure.message);
        let failure =
            Failure { code: Code::Stuck, message, retryable: false, ..failure }.hint(format!(
                "`banger vm recover {name}` says what is left, and with --yes takes it away; or: \
                 banger vm stop {name}, banger vm delete {name}"
            ));
        self.finished(Outcome::Stuck { step, cause, undo }, Some(failure))
    }

    pub(super) fn finished(&self, outcome: Outcome, failure: Option<Failure>) -> Finished {
        let failure = failure.map(|failure| failure.of(self.cx.op));
        Finished { outcome, failure }
    }

    /// Makes the event durable, and with it what was pending.
    async fn record(&mut self, at: usize, event: StepEvent) -> Result<(), RunError> {
        self.push(at, event)?;
        self.flush().await
    }

    fn push(&mut self, at: usize, event: StepEvent) -> Result<(), RunError> {
        let unix_ms = self.cx.ports.clock.unix_ms();
        let entry = Entry { step: self.steps[at].name().to_owned(), event, unix_ms };
        self.progress[at].apply(&entry)?;
        self.enter(at, &entry);
        self.pending.push(entry);
        Ok(())
    }

    /// Keeps the ledger in step with the journal: a row comes with the entry that announces a thing, and
    /// goes with the one that tells that it is gone.
    fn enter(&mut self, at: usize, entry: &Entry) {
        let (step, vm) = (self.steps[at], &self.cx.vm);
        let gone = |kinds: &[ResourceKind]| -> Vec<_> {
            kinds.iter().map(|kind| LedgerChange::Gone(vm.id, *kind)).collect()
        };
        let changes = match &entry.event {
            StepEvent::Started => {
                let row = |kind: ResourceKind| LedgerRow {
                    vm: vm.id,
                    kind,
                    name: kind.name_of(vm),
                    op: Some(self.cx.op),
                    unix_ms: entry.unix_ms,
                };
                let made = step.makes(self.cx).into_iter().map(row);
                made.map(LedgerChange::Made).collect()
            }
            StepEvent::Succeeded(_) => gone(step.frees()),
            StepEvent::UndoFinished => gone(&step.makes(self.cx)),
            StepEvent::Failed(_) | StepEvent::UndoStarted | StepEvent::UndoFailed(_) => vec![],
        };
        self.ledger.extend(changes);
    }

    async fn flush(&mut self) -> Result<(), RunError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (entries, ledger) =
            (std::mem::take(&mut self.pending), std::mem::take(&mut self.ledger));
        Ok(self.journal.record(entries, ledger).await?)
    }

    fn span(&self, at: usize) -> tracing::Span {
        let (op_id, vm) = (self.cx.op, self.cx.vm.id);
        let (name, step) = (&self.cx.vm.spec.name, self.steps[at].name());
        tracing::info_span!("step", %op_id, vm_id = %vm, vm = %name, step)
    }

    fn note_done(&self, at: usize, elapsed: Duration, output: &str) {
        let elapsed_ms = millis(elapsed);
        let step = self.steps[at].name();
        tracing::info!(parent: &self.span(at), step, elapsed_ms, output, "step done");
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let step = step.to_owned();
        (self.cx.watcher)(EventKind::StepDone { step, elapsed_us });
    }

    fn note_failed(&self, at: usize, elapsed: Duration, error: &StepError) {
        let (elapsed_ms, cause) = (millis(elapsed), chain(error));
        let step = self.steps[at].name();
        tracing::warn!(parent: &self.span(at), step, elapsed_ms, cause, "step failed");
        let step = step.to_owned();
        (self.cx.watcher)(EventKind::StepFailed { step, cause });
    }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// One try of a step, and the time it took.
async fn work(
    step: &dyn Step,
    cx: &StepCx,
    direction: Direction,
) -> (Result<String, StepError>, Duration) {
    let began = Instant::now();
    let work = bounded(step.run(cx), step.limit(&cx.settings));
    let result = if direction == Direction::Back && step.interruptible() {
        tokio::select! {
            biased;
            done = work => done,
            () = cx.cancel.cancelled() => Err(StepError::Cancelled),
        }
    } else {
        work.await
    };
    (result, began.elapsed())
}

/// Makes a panic and an overrun of its time ordinary failures of a step.
async fn bounded<T>(
    work: BoxFuture<'_, Result<T, StepError>>,
    limit: Duration,
) -> Result<T, StepError> {
    let caught = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(limit, caught).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(StepError::Panicked(text.unwrap_or_default()))
        }
        Err(_) => Err(StepError::TimedOut(limit)),
    }
}
