//! Bringing a guest what its owner wants in every one, once it serves and before its name leads to it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::await_guest::{MARGIN, while_alive};
use super::step::no_undo;
use super::{Settings, Step, StepCx, StepError};
use crate::model::{Code, EventKind};

/// Files of the owner's may be many.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct FurnishGuest;

impl Step for FurnishGuest {
    fn name(&self) -> &'static str {
        "furnish-guest"
    }

    fn has_effect(&self) -> bool {
        false
    }

    fn limit(&self, _settings: &Settings) -> Duration {
        LIMIT + MARGIN
    }

    fn interruptible(&self) -> bool {
        true
    }

    /// What is not there to be brought is told, and no reason not to start.
    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
        async move {
            let paths = cx.ports.disk.paths(cx.vm.id);
            let bringing = cx.ports.guest.furnish(cx.op, &paths);
            let what = "bring the owner's files to";
            let missing = while_alive(cx, what, LIMIT, Code::Deadline, bringing).await?;
            for text in &missing {
                (cx.watcher)(EventKind::Note { text: text.clone() });
            }
            Ok(missing.join("; "))
        }
        .boxed()
    }

    fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
        no_undo("what was brought is replaced at the next start")
    }
}
