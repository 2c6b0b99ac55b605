//! What is told as it happens: events, and operations that others began.
//!
//! A follower reads from its place in the store, so it may be as slow as it likes. It ends when its
//! client has gone or the daemon stops; the client finds the next daemon and goes on.

use std::collections::BTreeSet;

use super::answers::resolve_op;
use super::events::Tail;
use super::house::House;
use super::session::{Refusal, Response, Session};
use super::vm::{Ended, Ticket};
use crate::model::{Code, Event, EventKind, Failure, Name, OpId, OpKind, OpRecord, VmId};
use crate::store::StoreError;
use crate::wire::reply::{EventInfo, EventKindInfo, Reply};
use crate::wire::request::{EventsOf, Since};

/// Ends when the client has closed its side (one that only reads sends nothing else) or the daemon
/// stops.
pub(super) async fn left(session: &Session<'_>) {
    let hung_up = async {
        loop {
            let stream = session.frames.get_ref();
            if stream.readable().await.is_err() {
                return;
            }
            match stream.try_read(&mut [0; 1]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        () = hung_up => {}
        () = session.stop.cancelled() => {}
    }
}

pub(super) async fn events(
    session: &mut Session<'_>,
    asked: EventsOf,
) -> Result<Response, Refusal> {
    let house = session.house;
    let store = &house.store;
    let mut wanted = Wanted::of(house, &asked)?;
    let end = store.last_event();
    let oldest = store.events(1, 1).map_err(|error| told(&error))?.pop();
    let (from, forgotten) = match asked.since {
        Since::Seq(seq) => {
            // One that nobody has: what comes next.
            (seq.clamp(1, end + 1), oldest.filter(|oldest| (1..oldest.seq).contains(&seq)))
        }
        Since::UnixMs(since) => {
            (1, oldest.filter(|oldest| oldest.seq > 1 && oldest.unix_ms > since))
        }
    };
    if let Some(oldest) = &forgotten {
        session.frames.send(&Reply::Event(forgot(oldest.seq))).await?;
    }
    let mut tail = Tail::from(store, from);
    // What is passed over at the beginning is told already, or was not asked for.
    let mut due = None;
    loop {
        let event = if asked.follow {
            tokio::select! {
                event = tail.next() => event,
                () = left(session) => return Ok(Response::Streamed),
            }
        } else {
            tail.ready()
        };
        let Some(event) = event.map_err(|error| told(&error))? else { break };
        if !asked.follow && event.seq > end {
            break;
        }
        if due.is_some_and(|due| event.seq > due) {
            session.frames.send(&Reply::Event(forgot(event.seq))).await?;
        }
        due = Some(event.seq + 1);
        if wanted.has(&event) {
            session.frames.send(&Reply::Event((&event).into())).await?;
        }
    }
    Ok(Response::Now(crate::wire::reply::Answer::Nothing))
}

/// Which events a reader is told.
struct Wanted {
    since_unix_ms: u64,
    op: Option<OpId>,
    /// Every VM that has had the name, those to come included.
    vms: Option<(String, BTreeSet<VmId>)>,
}

impl Wanted {
    fn of(house: &House, asked: &EventsOf) -> Result<Self, Failure> {
        let since_unix_ms = match asked.since {
            Since::Seq(_) => 0,
            Since::UnixMs(since) => since,
        };
        let op = asked.op.as_deref().map(|text| resolve_op(house, text)).transpose()?;
        let vms = asked
            .vm
            .as_deref()
            .map(|name| vms_named(house, name).map(|vms| (name.to_owned(), vms)));
        Ok(Self { since_unix_ms, op: op.map(|op| op.id), vms: vms.transpose()? })
    }

    fn has(&mut self, event: &Event) -> bool {
        if let (Some((name, vms)), EventKind::OpStarted { kind: OpKind::CreateVm, subject }) =
            (&mut self.vms, &event.kind)
            && name == subject
        {
            vms.extend(event.vm);
        }
        let of_vm =
            |(_, vms): &(String, BTreeSet<VmId>)| event.vm.is_some_and(|vm| vms.contains(&vm));
        event.unix_ms >= self.since_unix_ms
            && self.op.is_none_or(|op| event.op_id == Some(op))
            && self.vms.as_ref().is_none_or(of_vm)
    }
}

/// Also those that are gone, as far as their operations are remembered.
fn vms_named(house: &House, text: &str) -> Result<BTreeSet<VmId>, Failure> {
    let store = &house.store;
    let mut vms: BTreeSet<VmId> = text.parse().into_iter().collect();
    if let Ok(name) = Name::vm(text) {
        vms.extend(store.vm_named(&name).map_err(|error| told(&error))?.map(|vm| vm.id));
    }
    let ops = store.ops(usize::MAX).map_err(|error| told(&error))?;
    vms.extend(ops.iter().filter(|op| op.subject == text).filter_map(|op| op.vm));
    if vms.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("no VM is or was named {text:?}"))
            .hint("`banger vm list` shows what exists"));
    }
    Ok(vms)
}

/// What has happened already, then the rest as it happens, then the end.
pub(super) async fn watch_op(session: &mut Session<'_>, text: &str) -> Result<Response, Refusal> {
    let house = session.house;
    let op = resolve_op(house, text)?;
    let beginning = beginning_of(house, op.id).await?;
    // Of one that ended long ago the events are gone, or there were none.
    if beginning.is_some() || op.outcome.is_none() {
        let mut tail = Tail::from(&house.store, beginning.unwrap_or(1));
        loop {
            let event = tokio::select! {
                event = tail.next() => event,
                () = left(session) => return Ok(Response::Streamed),
            };
            let Some(event) = event.map_err(|error| told(&error))? else { break };
            if event.op_id != Some(op.id) {
                continue;
            }
            session.frames.send(&Reply::Event((&event).into())).await?;
            if matches!(event.kind, EventKind::OpEnded { .. }) {
                break;
            }
        }
    }
    let op = house.store.op(op.id).map_err(|error| told(&error))?.unwrap_or(op);
    let failure = failure_of(house, &op);
    Ok(Response::Follow(Ticket::settled(Ended { op, failure, view: None })))
}

/// What the VM's record tells of it, which is more than the outcome does.
fn failure_of(house: &House, op: &OpRecord) -> Option<Failure> {
    let record = house.store.vm(op.vm?).ok().flatten()?;
    record.last_failure.filter(|failure| failure.op_id == Some(op.id))
}

/// The number of the event that tells of it, if it is kept.
pub(super) async fn beginning_of(house: &House, op: OpId) -> Result<Option<u64>, Failure> {
    let store = house.store.clone();
    let looked = tokio::task::spawn_blocking(move || store.beginning_of(op)).await;
    let looked = looked
        .map_err(|error| Failure::new(Code::Internal, format!("look for an event: {error}")))?;
    looked.map_err(|error| told(&error))
}

fn told(error: &StoreError) -> Failure {
    Failure::from(error)
}

/// Older ones than this are not kept any more.
fn forgot(first: u64) -> EventInfo {
    let kind = EventKindInfo::Forgotten { first };
    EventInfo { seq: 0, unix_ms: 0, op_id: None, vm_id: None, kind }
}
