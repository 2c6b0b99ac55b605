//! Numbers without gaps, commits that cost nothing more, and what does not fit.

use std::time::Duration;

use super::*;
use crate::model::{Entry, OpKind, OpRecord, Outcome, StepEvent};
use crate::store::reserve_tests::draft;

const LIMIT: Duration = Duration::from_secs(20);

fn note(n: u64) -> Event {
    let kind = EventKind::Note { text: n.to_string() };
    Event { seq: 0, unix_ms: n, op_id: None, vm: None, kind }
}

fn op() -> OpRecord {
    draft(7, "web").intent
}

fn entry() -> Entry {
    Entry { step: "tap".to_owned(), event: StepEvent::Started, unix_ms: 0 }
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn all(store: &Store) -> Vec<Event> {
    store.events(1, usize::MAX).unwrap()
}

fn numbers(store: &Store) -> Vec<u64> {
    all(store).iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn numbers_go_on_after_a_restart() {
    let (dir, store) = open();
    (1..=3).for_each(|n| store.publish(note(n)));
    assert!(store.close_blocking(LIMIT), "what was published is written by the end");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.last_event(), 3);
    store.publish(note(4));
    store.flush().await.unwrap();
    assert_eq!(numbers(&store), [1, 2, 3, 4]);
    assert_eq!(all(&store)[3], Event { seq: 4, ..note(4) });
    assert_eq!(store.events(3, 1).unwrap()[0].seq, 3);
}

#[tokio::test]
async fn an_event_goes_with_a_commit_that_happens_anyway() {
    let (_dir, store) = open();
    store.record_intent(op()).await.unwrap();
    let commits = || store.env.info().last_txn_id;
    let before = commits();
    for n in 0..20 {
        (0..5).for_each(|_| store.publish(note(1)));
        store.append(op().id, n, vec![entry()]).await.unwrap();
        assert_eq!(store.last_event(), u64::from(n + 1) * 5 + 1, "told as soon as it is durable");
    }
    let commits = commits() - before;
    // The writer may find the events before the journal's entry, when it must have waited long.
    assert!((20..25).contains(&commits), "{commits} commits for 20 entries of a journal");
}

#[tokio::test]
async fn one_that_nothing_goes_with_is_written_all_the_same() {
    let (_dir, store) = open();
    store.publish(note(1));
    assert!(tokio::time::timeout(LIMIT, store.event_after(0)).await.unwrap());
    assert_eq!(numbers(&store), [1]);
}

#[tokio::test]
async fn a_job_that_fails_leaves_no_gap() {
    let (_dir, store) = open();
    let bad = store.write(|txn, dbs| {
        append(txn, dbs, note(9))?;
        Err::<(), _>(StoreError::Busy)
    });
    let (bad, good) = tokio::join!(bad, store.write(|txn, dbs| append(txn, dbs, note(1))));
    assert!(bad.is_err());
    good.unwrap();
    assert_eq!(all(&store), [Event { seq: 1, ..note(1) }]);
}

#[tokio::test]
async fn what_does_not_fit_is_counted_and_told() {
    let (_dir, store) = open();
    // The writer is held up, by a job.
    let (go, wait) = channel::bounded::<()>(1);
    let (here, begun) = channel::bounded::<()>(1);
    let writing = store.clone();
    let held = tokio::spawn(async move {
        let job = move |_: &mut RwTxn<'_>, _: &Dbs| {
            here.send(()).unwrap();
            wait.recv().unwrap();
            Ok(())
        };
        writing.write(job).await
    });
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
    let count = QUEUE as u64 + 5;
    (1..=count).for_each(|n| store.publish(note(n)));
    go.send(()).unwrap();
    held.await.unwrap().unwrap();
    store.flush().await.unwrap();
    let events = all(&store);
    assert_eq!(events.len(), QUEUE + 1);
    assert_eq!(events[QUEUE].kind, EventKind::Lost { count: 5 });
    assert_eq!(events[QUEUE].seq, QUEUE as u64 + 1);
}

#[tokio::test]
async fn the_oldest_go_and_the_newest_stays() {
    let (dir, store) = open();
    store.keep_events(10);
    for n in 1..=50 {
        store.publish(note(n));
        store.flush().await.unwrap();
    }
    assert_eq!(numbers(&store), (41..=50).collect::<Vec<_>>());
    store.keep_events(0);
    store.publish(note(51));
    store.flush().await.unwrap();
    assert!(store.close_blocking(LIMIT));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((numbers(&store), store.last_event()), (vec![51], 51));
}

#[tokio::test]
async fn the_life_of_an_operation_and_its_vm_is_told_once_each() {
    let (_dir, store) = open();
    store.record_intent(op()).await.unwrap();
    store.record_intent(op()).await.unwrap();
    assert_eq!(store.beginning_of(op().id).unwrap(), Some(1));
    store.settle(op().id, Outcome::Done, 9).await.unwrap();
    store.settle(op().id, Outcome::Done, 10).await.unwrap();
    let told = |kind| Event { op_id: Some(op().id), vm: op().vm, ..Event { kind, ..note(9) } };
    let began = told(EventKind::OpStarted { kind: OpKind::CreateVm, subject: "web".to_owned() });
    let ended = told(EventKind::OpEnded { outcome: Outcome::Done });
    let began = Event { seq: 1, unix_ms: op().started_unix_ms, ..began };
    assert_eq!(all(&store), [began, Event { seq: 2, ..ended }]);
    assert_eq!(store.beginning_of(OpId([9; 16])).unwrap(), None);
}
