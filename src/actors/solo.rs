//! An operation that is no VM's: its intent, its steps one after the other, its outcome. Each is durable
//! before what it announces.
//!
//! There is no undo: a crash leaves it open, the next daemon ends it, and whoever wants the rest done asks
//! again.

use std::sync::Arc;

use tokio::sync::watch;

use super::events::EventSink;
use super::patience::Patience;
use super::vm::Ended;
use crate::model::{Entry, EventKind, Failure, OpId, OpRecord, Outcome, StepEvent};
use crate::ports::Clock;
use crate::store::{Intent, Store};

pub(super) type Done = watch::Sender<Option<Ended>>;

/// What it needs of the daemon.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: EventSink,
}

pub(super) struct Solo {
    desk: Desk,
    op_id: OpId,
    /// The next entry of its journal.
    next: u32,
}

impl Solo {
    /// None: the answer is in `done` already.
    pub(super) async fn begin(desk: Desk, intent: OpRecord, done: &Done) -> Option<Self> {
        match desk.store.record_intent(intent.clone()).await {
            Ok(Intent::Recorded) => Some(Self { desk, op_id: intent.id, next: 0 }),
            Ok(Intent::Known(op)) => {
                done.send_replace(Some(Ended { op, failure: None, view: None }));
                None
            }
            Err(error) => {
                let cause = error.to_string();
                let outcome = Some(Outcome::RolledBack { step: "intent".to_owned(), cause });
                let failure = Some(Failure::from(&error).of(intent.id));
                let op = OpRecord { outcome, ..intent };
                done.send_replace(Some(Ended { op, failure, view: None }));
                None
            }
        }
    }

    /// Does a step's work. One that cannot be announced is not begun.
    pub(super) async fn step(
        &mut self,
        step: &str,
        work: impl Future<Output = Result<String, Failure>>,
    ) -> Result<String, Failure> {
        let started = std::time::Instant::now();
        self.journal(step, StepEvent::Started).await?;
        let name = step.to_owned();
        self.publish(EventKind::StepStarted { step: name.clone() });
        match work.await {
            Ok(output) => {
                drop(self.journal(step, StepEvent::Succeeded(output.clone())).await);
                let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.publish(EventKind::StepDone { step: name, elapsed_us });
                Ok(output)
            }
            Err(failure) => {
                let cause = failure.message.clone();
                drop(self.journal(step, StepEvent::Failed(cause.clone())).await);
                self.publish(EventKind::StepFailed { step: name, cause });
                Err(failure)
            }
        }
    }

    /// For one that has a single step, and ends with it.
    pub(super) async fn only_step(
        mut self,
        step: &'static str,
        work: impl Future<Output = Result<String, Failure>>,
        done: &Done,
    ) {
        match self.step(step, work).await {
            Ok(_) => self.end(Outcome::Done, None, done).await,
            Err(failure) => {
                let (step, cause) = (step.to_owned(), failure.message.clone());
                self.end(Outcome::RolledBack { step, cause }, Some(failure), done).await;
            }
        }
    }

    pub(super) async fn end(self, outcome: Outcome, failure: Option<Failure>, done: &Done) {
        let (store, now) = (&self.desk.store, self.desk.clock.unix_ms());
        let mut patience = Patience::new();
        while let Err(error) = store.settle(self.op_id, outcome.clone(), now).await {
            tracing::error!(error = %crate::model::chain(&error), "outcome not written");
            patience.pause().await; // until the daemon ends
        }
        if let Ok(Some(op)) = store.op(self.op_id) {
            let failure = failure.map(|failure| failure.of(self.op_id));
            done.send_replace(Some(Ended { op, failure, view: None }));
        }
    }

    async fn journal(&mut self, step: &str, event: StepEvent) -> Result<(), Failure> {
        let entry = Entry { step: step.to_owned(), event, unix_ms: self.desk.clock.unix_ms() };
        let written = self.desk.store.append(self.op_id, self.next, vec![entry]).await;
        self.next += 1;
        written.map_err(|error| {
            tracing::error!(error = %crate::model::chain(&error), "journal not written");
            Failure::from(&error)
        })
    }

    fn publish(&self, kind: EventKind) {
        self.desk.events.publish(Some(self.op_id), None, kind);
    }
}
