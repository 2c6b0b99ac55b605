//! The writer and what it survives: bad jobs, a full queue, a full map, a kill.

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crossbeam_channel as channel;
use futures::FutureExt;
use heed::RwTxn;
use tokio::sync::oneshot;

use super::meta::Fact;
use super::schema::Dbs;
use super::store::QUEUE;
use super::{Intent, Store, StoreError};
use crate::model::{Code, Entry, Failure, OpId, OpKind, OpRecord, StepEvent};

fn put(
    key: &'static [u8],
    bytes: usize,
) -> impl FnOnce(&mut RwTxn<'_>, &Dbs) -> Result<(), StoreError> {
    move |txn, dbs| dbs.meta.put(txn, key, Fact("x".repeat(bytes)))
}

fn has(store: &Store, key: &[u8]) -> bool {
    store.read(|txn, dbs| dbs.meta.get(txn, key)).unwrap().is_some()
}

fn op(n: u64) -> OpRecord {
    OpRecord {
        id: OpId::from_parts(n, [0; 10]),
        kind: OpKind::StartVm,
        vm: None,
        subject: "web".to_owned(),
        request_hash: n,
        started_unix_ms: n,
        ended_unix_ms: None,
        outcome: None,
    }
}

/// Group commit must not let one job take its neighbours down.
#[tokio::test]
async fn bad_jobs_fail_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_sized(dir.path(), 1 << 20).unwrap();
    let fill = |txn: &mut RwTxn<'_>, dbs: &Dbs| {
        (0..2_000_u32)
            .try_for_each(|i| dbs.meta.put(txn, &i.to_be_bytes(), Fact("x".repeat(4_000))))
    };
    let boom = |txn: &mut RwTxn<'_>, dbs: &Dbs| -> Result<(), StoreError> {
        dbs.meta.put(txn, b"boom", Fact(String::new()))?;
        panic!("bug")
    };
    let (a, full, b, bad_key, panicked, c) = tokio::join!(
        store.write(put(b"a", 8)),
        store.write(fill),
        store.write(put(b"b", 8)),
        store.write(put(b"", 8)),
        store.write(boom),
        store.write(put(b"c", 8)),
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert!(full.unwrap_err().is_full());
    assert!(matches!(bad_key, Err(StoreError::Lmdb(_))));
    assert!(matches!(panicked, Err(StoreError::Panicked)));
    assert!(has(&store, b"a") && has(&store, b"b") && has(&store, b"c"));
    assert!(!has(&store, &0_u32.to_be_bytes()) && !has(&store, b"boom"));
}

#[tokio::test]
async fn full_queue_is_refused_not_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (go, wait) = channel::bounded::<()>(0); // a rendezvous: holds the writer in its job
    let (enter, entered) = oneshot::channel();
    let held = tokio::spawn({
        let store = store.clone();
        let job = move |_: &mut RwTxn<'_>, _: &Dbs| {
            enter.send(()).map_err(|()| StoreError::Gone)?;
            wait.recv().map_err(|_| StoreError::Gone)
        };
        async move { store.write(job).await }
    });
    entered.await.unwrap();
    let mut queued: Vec<_> = (0..QUEUE).map(|_| Box::pin(store.write(put(b"k", 1)))).collect();
    assert!(queued.iter_mut().all(|write| write.now_or_never().is_none()));
    assert!(matches!(store.write(put(b"k", 1)).await, Err(StoreError::Busy)));
    go.send(()).unwrap();
    held.await.unwrap().unwrap();
    assert!(futures::future::join_all(queued).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_full_map_refuses_work_and_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_sized(dir.path(), 1 << 20).unwrap();
    store.record_intent(op(1)).await.unwrap();
    let mut kept = 0;
    let full = loop {
        match store.set_fact(&format!("fact-{kept}"), "x".repeat(50_000)).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(Failure::from(&full).code, Code::NoSpace);
    assert!(kept > 5, "{kept}");
    assert_eq!(store.open_ops().unwrap(), [op(1)]);
    assert!(store.fact("fact-0").unwrap().is_some());
    assert!(store.fact(&format!("fact-{kept}")).unwrap().is_none());
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let idle = std::fs::metadata(dir.path().join("data.mdb")).unwrap();
    assert!(idle.len() < 1 << 20, "the map is address space, not disk: {}", idle.len());
    store.record_intent(op(1)).await.unwrap();
    store.flush().await.unwrap();
    let clone = store.clone();
    assert!(!clone.close_blocking(Duration::ZERO), "this handle is still open");
    assert!(store.close_blocking(Duration::from_secs(10)));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.op(op(1).id).unwrap(), Some(op(1)));
}

#[tokio::test]
async fn a_store_is_opened_once_per_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Open { .. })));
    drop(store);
}

const CHILD_DIR: &str = "BANGER_TEST_STORE_CHILD";
const COMMITTED: &str = "committed ";

/// Runs itself as a second process that writes without end, kills it in the middle, and looks at
/// what is left.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a process to kill, and it is this test itself")]
async fn a_killed_writer_leaves_nothing_half_written() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return write_without_end(dir.as_ref()).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "store::store_tests::a_killed_writer_leaves_nothing_half_written";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let committed = lines
        .map_while(Result::ok)
        .filter_map(|line| line.split_once(COMMITTED).map(|(_, n)| n.parse::<u64>().unwrap()))
        .take(40)
        .last();
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ops = store.open_ops().unwrap();
    assert!(ops.len() as u64 > committed.unwrap(), "what was answered is there");
    for record in &ops {
        let history = store.history(record.id).unwrap().len();
        assert!(history == 0 || history == 8, "{history} of 8 entries of one write");
    }
    assert_eq!(store.record_intent(op(1 << 40)).await.unwrap(), Intent::Recorded);
}

async fn write_without_end(dir: &std::path::Path) {
    let store = Store::open(dir).unwrap();
    for n in 0.. {
        let entry = Entry { step: "tap".to_owned(), event: StepEvent::Started, unix_ms: n };
        store.record_intent(op(n)).await.unwrap();
        store.append(op(n).id, 0, vec![entry; 8]).await.unwrap();
        writeln!(std::io::stdout(), "{COMMITTED}{n}").unwrap();
    }
}

#[tokio::test]
async fn a_store_nearly_full_refuses_what_adds_and_lets_vms_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_sized(dir.path(), 4 << 20).unwrap();
    let start = op(1);
    store.record_intent(start.clone()).await.unwrap();
    let mut kept = 0;
    let refused = loop {
        match store.record_intent(op(100 + kept)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        store.set_fact(&format!("fact-{kept}"), "x".repeat(40_000)).await.unwrap();
    };
    let failure = Failure::from(&refused);
    assert_eq!(failure.code, Code::NoSpace);
    assert!(failure.hints[0].contains("restart bangerd"), "{failure:?}");
    assert_eq!(store.record_intent(start.clone()).await.unwrap(), Intent::Known(start));
    for n in 0..10 {
        let stop = OpRecord { kind: OpKind::StopVm, ..op(10_000 + n) };
        store.record_intent(stop.clone()).await.unwrap();
        let done = crate::model::Outcome::Done;
        store.append(stop.id, 0, vec![]).await.unwrap();
        store.settle(stop.id, done, 1).await.unwrap();
    }
    // The next start has a larger map.
    assert!(store.close_blocking(Duration::from_secs(10)));
    let store = Store::open(dir.path()).unwrap();
    store.record_intent(op(99)).await.unwrap();
}

#[tokio::test]
async fn the_disk_is_kept_for_what_is_written_next() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.record_intent(op(1)).await.unwrap();
    let file = std::fs::metadata(dir.path().join("data.mdb")).unwrap();
    let (has, needs) = (file.blocks() * 512, file.len() + (2 << 20));
    assert!(has >= needs, "{has} bytes allocated, {needs} wanted");
    assert!(file.len() < 1 << 20, "and no larger to look at: {}", file.len());
}
