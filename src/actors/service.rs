//! Keeps the daemon's single actors (taps, names, images) alive: when one dies by a panic
//! it is built anew from the store, within a budget, and its handle leads to the new one.
//!
//! What must not be done here: bring the same struct back. Whatever made it panic is in it.

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Addr, Context};
use tokio::sync::Notify;

use super::events::EventSink;
use super::handle::Handle;
use super::watch::{RestartBudget, Verdict};
use crate::model::EventKind;

/// A service actor holds one and rings it in `stopped()`, which actix also runs while a panic
/// unwinds; a second panic there would abort the daemon, so it does no more than that.
#[derive(Clone, Debug, Default)]
pub(super) struct DeathBell(Arc<Notify>);

impl DeathBell {
    pub(super) fn ring(&self) {
        self.0.notify_one();
    }
}

/// Starts the service and a task that replaces it when it dies. `build` makes a fresh actor from
/// durable state; it runs on the arbiter and must not block for longer than a short read.
pub(super) fn keep<A, F>(
    name: &'static str,
    slots: usize,
    events: Option<EventSink>,
    build: F,
) -> Handle<A>
where
    A: Actor<Context = Context<A>>,
    F: Fn(DeathBell) -> Addr<A> + 'static,
{
    let bell = DeathBell::default();
    let handle = Handle::new(build(bell.clone()), slots);
    let kept = handle.clone();
    actix::spawn(async move {
        let mut budget = RestartBudget::default();
        for incarnation in 2.. {
            bell.0.notified().await;
            match budget.on_death(Instant::now()) {
                Verdict::Quarantine => {
                    tracing::error!(actor = name, "died too often; it stays down");
                    if let Some(events) = &events {
                        let actor = name.to_owned();
                        events.publish(None, None, EventKind::ActorQuarantined { actor });
                    }
                    return;
                }
                Verdict::RebuildAfter(pause) => {
                    tokio::time::sleep(pause).await;
                    kept.replace(build(bell.clone()));
                    tracing::error!(actor = name, incarnation, "died; built anew");
                    if let Some(events) = &events {
                        let actor = name.to_owned();
                        events.publish(None, None, EventKind::ActorRebuilt { actor, incarnation });
                    }
                }
            }
        }
    });
    handle
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix::Handler;

    use super::*;
    use crate::actors::envelope::{CallError, Command, OpCtx, Req};
    use crate::model::OpId;

    struct Fragile(DeathBell);

    impl Actor for Fragile {
        type Context = Context<Self>;

        fn stopped(&mut self, _: &mut Self::Context) {
            self.0.ring();
        }
    }

    /// Panics if told to.
    struct Ask(bool);

    impl Command for Ask {
        type Reply = ();
        const NAME: &'static str = "test.ask";
    }

    impl Handler<Req<Ask>> for Fragile {
        type Result = Result<(), CallError>;

        fn handle(&mut self, req: Req<Ask>, _: &mut Self::Context) -> Self::Result {
            assert!(!req.cmd.0, "planned panic");
            Ok(())
        }
    }

    fn ctx() -> OpCtx {
        let deadline = Instant::now() + Duration::from_secs(5);
        OpCtx { op_id: OpId([0; 16]), deadline, span: tracing::Span::none() }
    }

    #[actix::test]
    async fn the_same_handle_leads_to_the_new_actor_until_the_budget_is_spent() {
        tokio::time::pause();
        let handle = keep("fragile", 4, None, |bell| Fragile(bell).start());
        for _ in 0..3 {
            assert_eq!(handle.call(ctx(), Ask(true)).await, Err(CallError::Gone));
            while handle.call(ctx(), Ask(false)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        assert_eq!(handle.call(ctx(), Ask(true)).await, Err(CallError::Gone));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(handle.call(ctx(), Ask(false)).await, Err(CallError::Gone));
    }
}
