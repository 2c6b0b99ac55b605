//! Making and deleting on the simulated host: names, files, and many who ask at once.

use std::time::{Duration, Instant};

use super::*;
use crate::actors::envelope::OpCtx;
use crate::actors::vm::Ended;
use crate::model::Outcome;
use crate::sim::{At, Fault, SimOptions, SimWorld};

pub(super) struct Rig {
    pub(super) images: Handle<ImagesActor>,
    pub(super) store: Store,
    pub(super) sim: Arc<SimWorld>,
    pub(super) power: CancellationToken,
    _dir: tempfile::TempDir,
}

pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn ctx(n: u8) -> OpCtx {
    let op_id = OpId::from_parts(u64::from(n), [n; 10]);
    OpCtx { op_id, deadline: Instant::now() + LIMIT, span: tracing::Span::none() }
}

fn recipe(suite: &str) -> Recipe {
    let suite = suite.to_owned();
    Recipe::Image(ImageRecipe::Debian { suite, include: vec![], mirror: None })
}

fn name(text: &str) -> Name {
    Name::artefact(text).unwrap()
}

impl Rig {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let sim = Arc::new(SimWorld::new(SimOptions::new("10.9.0.0/24".parse().unwrap())));
        let clock: Arc<dyn Clock> = Arc::<SimWorld>::clone(&sim);
        let cancel = CancellationToken::new();
        let events = EventSink::new(store.clone(), Arc::clone(&clock));
        let images = ImagesActor::launch(ImagesDeps {
            store: store.clone(),
            images: Arc::<SimWorld>::clone(&sim),
            warm: Arc::<SimWorld>::clone(&sim),
            mint: Mint::new(Arc::clone(&clock)),
            clock,
            events,
            tasks: TaskTracker::new(),
            cancel: cancel.clone(),
        });
        Self { images, store, sim, power: cancel, _dir: dir }
    }

    async fn make(&self, n: u8, called: &str, suite: &str) -> Result<Ticket, CallError> {
        let make = Make { name: name(called), recipe: recipe(suite), request_hash: 1 };
        self.images.call(ctx(n), make).await
    }

    async fn made(&self, n: u8, called: &str, suite: &str) -> Ended {
        self.make(n, called, suite).await.unwrap().end().await.unwrap()
    }

    pub(super) async fn deleted(&self, n: u8, called: &str) -> Ended {
        let delete = Delete { name: name(called), kind: Kind::Image, request_hash: 1 };
        self.images.call(ctx(n), delete).await.unwrap().end().await.unwrap()
    }

    /// Waits for the sweep that follows an operation.
    pub(super) async fn files(&self, count: usize) {
        let waited = async {
            while self.sim.world().images.len() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT, waited).await.is_ok(), "{:?}", self.sim.world().images);
    }
}

#[actix::test]
async fn a_file_goes_with_the_last_of_its_names() {
    let rig = Rig::new();
    for (n, called) in [(1, "one"), (2, "two")] {
        assert_eq!(rig.made(n, called, "sid").await.op.outcome, Some(Outcome::Done));
    }
    rig.files(1).await;
    assert_eq!(rig.deleted(3, "one").await.op.outcome, Some(Outcome::Done));
    let other = rig.made(4, "three", "trixie").await; // its end sweeps, too
    assert_eq!(other.op.outcome, Some(Outcome::Done));
    rig.files(2).await;
    rig.deleted(5, "two").await;
    rig.files(1).await;
    let gone = rig.deleted(6, "two").await;
    assert_eq!(gone.failure.map(|failure| failure.code), Some(Code::NotFound));
    let steps: Vec<_> =
        rig.store.history(ctx(5).op_id).unwrap().into_iter().map(|entry| entry.step).collect();
    assert_eq!(steps, ["remove-name", "remove-name"]);
}

#[actix::test]
async fn however_many_ask_it_is_made_once() {
    let rig = Rig::new();
    let late = Fault::Delay(Duration::from_millis(50));
    rig.sim.plan(At::Every("images.make_image".to_owned()), late);
    let (first, again, other) = tokio::join!(
        rig.make(1, "debian", "sid"),
        rig.make(2, "debian", "sid"),
        rig.make(3, "debian", "trixie")
    );
    assert!(matches!(other, Err(CallError::Refused(f)) if f.code == Code::Busy));
    assert_eq!(again.unwrap().op_id, ctx(1).op_id);
    assert_eq!(first.unwrap().end().await.unwrap().op.outcome, Some(Outcome::Done));
    assert_eq!(rig.sim.calls_of("images.make_image"), 1);
    // The name is taken then: the same contents are there already, others are refused.
    assert_eq!(rig.made(4, "debian", "sid").await.op.outcome, Some(Outcome::Done));
    let taken = rig.made(5, "debian", "trixie").await;
    assert_eq!(taken.failure.map(|failure| failure.code), Some(Code::Exists));
    rig.files(1).await;
}

#[actix::test]
async fn what_fails_or_is_cancelled_leaves_neither_name_nor_file() {
    let rig = Rig::new();
    for (n, fault, code) in [(1, Fault::NoSpace, Code::NoSpace), (2, Fault::HalfDone, Code::Host)] {
        rig.sim.plan(At::Every("images.make_image".to_owned()), fault);
        let failed = rig.made(n, "debian", "sid").await;
        assert_eq!(failed.failure.map(|failure| failure.code), Some(code));
        rig.sim.forget_faults();
    }
    let late = Fault::Delay(Duration::from_millis(100));
    rig.sim.plan(At::Every("images.make_image".to_owned()), late);
    let mut making = rig.make(3, "debian", "sid").await.unwrap();
    assert!(rig.images.call(ctx(4), CancelMaking(ctx(3).op_id)).await.unwrap());
    let cancelled = making.end().await.unwrap();
    assert_eq!(cancelled.failure.map(|failure| failure.code), Some(Code::Cancelled));
    rig.files(0).await;
    assert_eq!(rig.store.images().unwrap(), []);
    assert!(!rig.images.call(ctx(5), CancelMaking(ctx(3).op_id)).await.unwrap(), "it has ended");
}
