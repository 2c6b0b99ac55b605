//! Pulls of kernels on the simulated host: what is here is not made again, what fails leaves nothing.

use std::time::Duration;

use super::tests::{Rig, ctx};
use super::*;
use crate::actors::vm::Ended;
use crate::model::{KernelRecord, Outcome};
use crate::sim::{At, Fault};

const PACKAGE: &str = "linux-image-cloud-amd64";

impl Rig {
    async fn pull_kernel(&self, n: u8) -> Ticket {
        let asked = DebianKernel::new(PACKAGE, None).unwrap();
        let (name, recipe) = (Name::artefact(PACKAGE).unwrap(), Recipe::PullKernel(asked));
        self.images.call(ctx(n), Make { name, recipe, request_hash: 1 }).await.unwrap()
    }

    async fn pulled_kernel(&self, n: u8) -> Ended {
        self.pull_kernel(n).await.end().await.unwrap()
    }

    fn kernel(&self) -> Option<KernelRecord> {
        self.store.kernel(PACKAGE).unwrap()
    }

    async fn kernel_files(&self, count: usize) {
        let waited = async {
            while self.sim.world().kernels.len() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let kernels = || self.sim.world().kernels;
        assert!(tokio::time::timeout(super::tests::LIMIT, waited).await.is_ok(), "{:?}", kernels());
    }
}

#[actix::test]
async fn what_is_here_is_not_made_again_and_a_later_one_takes_the_name() {
    let rig = Rig::new();
    assert_eq!(rig.pulled_kernel(1).await.op.outcome, Some(Outcome::Done));
    let again = rig.pulled_kernel(2).await.op.outcome;
    let here = format!("{PACKAGE} 6.1.0 is here already");
    assert_eq!(again, Some(Outcome::Unchanged(here)));
    assert_eq!(rig.sim.calls_of("images.make_kernel"), 1);
    let before = rig.kernel().unwrap();
    assert_eq!(before.source, format!("debian {PACKAGE} 6.1.0"));
    rig.sim.move_tags();
    assert_eq!(rig.pulled_kernel(3).await.op.outcome, Some(Outcome::Done));
    assert_ne!(rig.kernel().unwrap().digest, before.digest);
    rig.kernel_files(1).await;
}

#[actix::test]
async fn many_who_ask_make_one_and_the_last_to_leave_ends_it() {
    let rig = Rig::new();
    let late = Fault::Delay(Duration::from_millis(100));
    rig.sim.plan(At::Every("images.make_kernel".to_owned()), late);
    let mut tickets = vec![];
    for n in 1..=3 {
        tickets.push(rig.pull_kernel(n).await);
    }
    for n in 1..=3 {
        let withdrawn = rig.images.call(ctx(n + 10), Withdraw(ctx(n).op_id)).await.unwrap();
        assert_eq!(withdrawn == Withdrawn::Cancelled, n == 3, "{withdrawn:?}");
    }
    for ticket in &mut tickets {
        let ended = ticket.end().await.unwrap();
        assert_eq!(ended.failure.map(|failure| failure.code), Some(Code::Cancelled));
    }
    assert!(rig.sim.calls_of("images.find_kernel") == 1 && rig.kernel().is_none());
    rig.kernel_files(0).await;
}

#[actix::test]
async fn what_fails_leaves_the_one_that_was_there() {
    let rig = Rig::new();
    assert_eq!(rig.pulled_kernel(1).await.op.outcome, Some(Outcome::Done));
    let before = rig.kernel();
    rig.sim.move_tags();
    for (n, call, fault) in [
        (2, "images.find_kernel", Fault::Refuse),
        (3, "images.make_kernel", Fault::NoSpace),
        (4, "images.make_kernel", Fault::HalfDone),
    ] {
        rig.sim.plan(At::Every(call.to_owned()), fault);
        let failed = rig.pulled_kernel(n).await;
        assert!(failed.failure.is_some(), "{call}");
        assert_eq!(rig.kernel(), before, "{call}");
        rig.kernel_files(1).await;
        rig.sim.forget_faults();
    }
    assert_eq!(rig.pulled_kernel(5).await.op.outcome, Some(Outcome::Done));
}
