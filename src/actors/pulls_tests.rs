//! Pulls on the simulated host: many who wait for one, tags that move, ends that are none.

use std::time::Duration;

use super::tests::{LIMIT, Rig, ctx};
use super::*;
use crate::actors::vm::Ended;
use crate::model::Outcome;
use crate::sim::{At, Fault};

const IMAGE: &str = "quay.io/team/app:1";

fn image() -> ImageRef {
    IMAGE.parse().unwrap()
}

fn late(rig: &Rig, call: &str, by: Duration) {
    rig.sim.plan(At::Every(call.to_owned()), Fault::Delay(by));
}

impl Rig {
    async fn pull(&self, n: u8) -> Ticket {
        let make =
            Make { name: Name::from(&image()), recipe: Recipe::Pull(image()), request_hash: 1 };
        self.images.call(ctx(n), make).await.unwrap()
    }

    async fn pulled(&self, n: u8) -> Ended {
        self.pull(n).await.end().await.unwrap()
    }

    fn record(&self) -> Option<ImageRecord> {
        self.store.image(IMAGE).unwrap()
    }
}

#[actix::test]
async fn ten_who_ask_make_one_pull() {
    let rig = Rig::new();
    late(&rig, "images.fetch_image", Duration::from_millis(50));
    let tickets = futures::future::join_all((1..=10).map(|n| rig.pull(n))).await;
    for mut ticket in tickets {
        assert_eq!(ticket.op_id, ctx(1).op_id);
        assert_eq!(ticket.end().await.unwrap().op.outcome, Some(Outcome::Done));
    }
    assert_eq!(rig.sim.calls_of("images.fetch_image"), 1);
    assert_eq!(rig.sim.calls_of("images.make_image"), 1);
    let record = rig.record().unwrap();
    let source: ImageRef = record.source.parse().unwrap();
    assert_eq!((source.repository(), source.tag()), ("team/app", None));
    rig.files(1).await;
    let told = rig.store.events(1, usize::MAX).unwrap();
    let transfers = told.iter().filter(|event| matches!(event.kind, EventKind::Transfer(_)));
    assert_eq!(transfers.count(), 1);
}

#[actix::test]
async fn what_the_registry_has_still_is_not_made_again() {
    let rig = Rig::new();
    assert_eq!(rig.pulled(1).await.op.outcome, Some(Outcome::Done));
    assert!(matches!(rig.pulled(2).await.op.outcome, Some(Outcome::Unchanged(_))));
    assert_eq!(rig.sim.calls_of("images.make_image"), 1);
    let before = rig.record().unwrap();
    rig.sim.move_tags();
    assert_eq!(rig.pulled(3).await.op.outcome, Some(Outcome::Done));
    assert_ne!(rig.record().unwrap().digest, before.digest);
    rig.files(1).await;
}

#[actix::test]
async fn it_is_cancelled_by_the_last_who_wanted_it() {
    let rig = Rig::new();
    late(&rig, "images.fetch_image", Duration::from_millis(200));
    let mut ticket = rig.pull(1).await;
    for n in 2..=3 {
        rig.pull(n).await;
    }
    // Asked again, as after a lost connection, it is the same who waits.
    rig.pull(2).await;
    let withdraw = |n: u8, by: u8| rig.images.call(ctx(n), Withdraw(ctx(by).op_id));
    assert_eq!(withdraw(10, 1).await.unwrap(), Withdrawn::Others(2));
    assert_eq!(withdraw(11, 1).await.unwrap(), Withdrawn::NotThere);
    assert_eq!(withdraw(12, 2).await.unwrap(), Withdrawn::Others(1));
    assert_eq!(withdraw(13, 3).await.unwrap(), Withdrawn::Cancelled);
    let cancelled = ticket.end().await.unwrap();
    assert_eq!(cancelled.failure.map(|failure| failure.code), Some(Code::Cancelled));
    assert_eq!(rig.record(), None);
    rig.files(0).await;
    // By id it is cancelled whoever waits.
    rig.pull(4).await;
    let mut other = rig.pull(5).await;
    assert!(rig.images.call(ctx(14), CancelMaking(ctx(4).op_id)).await.unwrap());
    assert!(other.end().await.unwrap().failure.is_some());
}

#[actix::test]
async fn the_end_of_the_daemon_cancels_no_pull() {
    let rig = Rig::new();
    late(&rig, "images.fetch_image", Duration::from_secs(600));
    let mut ticket = rig.pull(1).await;
    while rig.sim.calls_of("images.fetch_image") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.power.cancel();
    let ended = tokio::time::timeout(LIMIT, ticket.end()).await.unwrap();
    assert!(ended.is_none(), "{ended:?}");
    let open = rig.store.open_ops().unwrap();
    assert_eq!((open.len(), open[0].kind), (1, OpKind::PullImage));
}

#[actix::test]
async fn the_cache_is_emptied_when_nothing_is_made_from_it() {
    let rig = Rig::new();
    let empty = async |n: u8| {
        let mut ticket = rig.images.call(ctx(n), EmptyCache { request_hash: 1 }).await.unwrap();
        let ended = ticket.end().await.unwrap();
        let open = rig.store.open_ops().unwrap();
        assert!(open.iter().all(|op| op.kind != OpKind::EmptyCache), "{open:?}");
        (ended.op.outcome, ended.failure.map(|failure| failure.code))
    };
    let cut = |outcome: &Option<Outcome>| matches!(outcome, Some(Outcome::RolledBack { .. }));
    let cached = || rig.sim.world().blobs.len();
    assert_eq!(rig.pulled(1).await.op.outcome, Some(Outcome::Done));
    late(&rig, "images.fetch_image", 2 * SWEEP_ENDS);
    let mut pull = rig.pull(2).await;
    while rig.sim.calls_of("images.fetch_image") < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (outcome, code) = empty(3).await;
    assert!(cut(&outcome) && code == Some(Code::Busy), "{outcome:?} {code:?}");
    assert!(matches!(pull.end().await.unwrap().op.outcome, Some(Outcome::Unchanged(_))));
    rig.sim.forget_faults();
    rig.sim.plan(At::Every("images.empty_cache".to_owned()), Fault::Refuse);
    assert!(cut(&empty(4).await.0));
    assert_eq!(cached(), 1);
    rig.sim.forget_faults();
    assert_eq!(empty(5).await, (Some(Outcome::Done), None));
    assert_eq!(cached(), 0);
    assert_eq!(empty(6).await.0, Some(Outcome::Done));
    assert!(rig.record().is_some());
}
