//! Owns the numbering of events, the ring of the last ones, and who watches.
//!
//! ```text
//! operations, actors ──publish──> bounded queue ──> EventsActor ──> ring, broadcast ──> sessions
//! ```
//!
//! Publishing never waits and never fails the publisher: when the queue is full the event is
//! dropped and counted. Events are for watching; nothing may be decided from them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::envelope::{CallError, Command, Req};
use super::handle::Handle;
use super::service::{self, DeathBell};
use crate::model::{Event, EventKind, OpId, VmId};
use crate::ports::Clock;

const QUEUE: usize = 4096;
const RING: usize = 2048;
const SLOTS: usize = 256;

/// What publishers hold.
#[derive(Clone, Debug)]
pub struct EventSink {
    queue: mpsc::Sender<Event>,
    clock: Arc<dyn Clock>,
    dropped: Arc<AtomicU64>,
}

impl EventSink {
    pub fn publish(&self, op_id: Option<OpId>, vm: Option<VmId>, kind: EventKind) {
        let event = Event { seq: 0, unix_ms: self.clock.unix_ms(), op_id, vm, kind };
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub struct EventsActor {
    shared: Shared,
    ring: VecDeque<Event>,
    bell: DeathBell,
}

/// What outlives one incarnation: watchers keep their place and numbers go on. The ring does not.
#[derive(Clone, Debug)]
struct Shared {
    feed: Arc<Mutex<mpsc::Receiver<Event>>>,
    next: Arc<AtomicU64>,
    watchers: broadcast::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// Both ends of the events.
#[derive(Clone, Debug)]
pub struct Events {
    pub sink: EventSink,
    pub actor: Handle<EventsActor>,
}

/// The events so far, from `since` on, and those to come.
#[derive(Clone, Copy, Debug)]
pub struct Subscribe {
    pub since: u64,
}

#[derive(Debug)]
pub struct Subscription {
    pub backlog: Vec<Event>,
    pub live: broadcast::Receiver<Event>,
}

impl Command for Subscribe {
    type Reply = Subscription;
    const NAME: &'static str = "events.subscribe";
}

impl EventsActor {
    /// Starts the actor. It takes events from a stream, so that a burst needs no mailbox slots.
    #[must_use]
    pub fn launch(clock: Arc<dyn Clock>, stop: &CancellationToken) -> Events {
        let (queue, feed) = mpsc::channel(QUEUE);
        let shared = Shared {
            feed: Arc::new(Mutex::new(feed)),
            next: Arc::new(AtomicU64::new(1)),
            watchers: broadcast::channel(QUEUE).0,
            dropped: Arc::new(AtomicU64::new(0)),
        };
        let sink = EventSink { queue, clock, dropped: Arc::clone(&shared.dropped) };
        let stop = stop.clone();
        let actor = service::keep("events", SLOTS, Some(sink.clone()), move |bell| {
            let (shared, stop) = (shared.clone(), stop.clone());
            Self::create(|ctx| {
                let feed = Arc::clone(&shared.feed);
                let events = futures::stream::poll_fn(move |cx| {
                    feed.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx)
                });
                ctx.add_stream(futures::StreamExt::take_until(events, stop.cancelled_owned()));
                Self { shared, ring: VecDeque::new(), bell }
            })
        });
        Events { sink, actor }
    }
}

impl Actor for EventsActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl StreamHandler<Event> for EventsActor {
    fn handle(&mut self, mut event: Event, _: &mut Self::Context) {
        let lost = self.shared.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "events dropped: the queue was full");
        }
        event.seq = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(event.clone());
        drop(self.shared.watchers.send(event)); // nobody watching is no error
    }

    /// The default would stop the actor, which still answers for the ring.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Req<Subscribe>> for EventsActor {
    type Result = Result<Subscription, CallError>;

    fn handle(&mut self, req: Req<Subscribe>, _: &mut Self::Context) -> Self::Result {
        let wanted = |event: &&Event| event.seq >= req.cmd.since;
        let backlog = self.ring.iter().filter(wanted).cloned().collect();
        Ok(Subscription { backlog, live: self.shared.watchers.subscribe() })
    }
}
