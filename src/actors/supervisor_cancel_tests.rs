//! A cancel at every call of every operation: the host is as before or the operation is done, and
//! the VM's state says which.

use super::*;

/// One operation on a VM that is made ready for it.
#[derive(Clone)]
struct Case {
    before: &'static [OpRequest],
    request: OpRequest,
}

const GRACE: Duration = Duration::ZERO;
const STOP: OpRequest = OpRequest::Stop { grace: GRACE };
const BUILDING: [Case; 4] = [
    Case { before: &[STOP], request: OpRequest::Start },
    Case { before: &[STOP], request: OpRequest::StartCold },
    Case { before: &[], request: OpRequest::Suspend },
    Case { before: &[OpRequest::Suspend], request: OpRequest::Resume },
];
const TEARING_DOWN: [Case; 3] = [
    Case { before: &[], request: STOP },
    Case { before: &[], request: OpRequest::Kill { signal: 9 } },
    Case { before: &[], request: OpRequest::Delete },
];

impl Case {
    async fn house(&self) -> House {
        let house = House::open(vec![], Duration::ZERO).await;
        house.create(1, "web", true).await.unwrap().end().await.unwrap();
        for (n, request) in (2..).zip(self.before) {
            let ended = house.done(n, "web", request.clone()).await;
            assert_eq!(ended.op.outcome, Some(Outcome::Done));
        }
        house.idle().await;
        house
    }
}

impl House {
    /// No operation in flight, and as many warm taps as there should be.
    async fn idle(&self) {
        while self.view("web").await.busy.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let sim = Arc::clone(&self.sim);
        let free = || {
            let world = sim.world();
            world.taps.len() - world.processes.len()
        };
        until("warm taps", || free() >= 2).await;
    }

    async fn cancel(&self, n: u8) -> Cancel {
        let found = self.supervisor.call(ctx(n), FindVm("web".to_owned())).await.unwrap();
        found.handle.unwrap().call(ctx(n), CancelOp(op(n))).await.unwrap()
    }

    /// Begins the operation and cancels it at its nth call of the host. None: it has fewer.
    async fn cancelled_at(&self, n: u8, request: OpRequest, at: usize) -> Option<(Ended, Cancel)> {
        let token = CancellationToken::new();
        let call = At::Call(self.sim.calls() + at);
        self.sim.plan(call, Fault::Cancel(token.clone()));
        let mut ticket = self.run(n, "web", request).await.unwrap();
        tokio::select! {
            biased;
            () = token.cancelled() => {}
            ended = ticket.end() => {
                let hit = token.is_cancelled();
                return hit.then(|| (ended.unwrap(), Cancel::NotRunning));
            }
        }
        let cancel = self.cancel(n).await;
        let ended = ticket.end().await.unwrap();
        self.idle().await;
        Some((ended, cancel))
    }
}

#[actix::test]
async fn a_cancel_at_any_step_leaves_the_vm_as_before_or_done() {
    for case in BUILDING {
        let mut undone = 0;
        for at in 0.. {
            let house = case.house().await;
            let before = house.view("web").await.record.state;
            let world = house.sim.world().shape();
            let Some((ended, _)) = house.cancelled_at(9, case.request.clone(), at).await else {
                break;
            };
            let why = format!("{:?} cancelled at call {at}", case.request);
            let view = house.view("web").await;
            match ended.op.outcome {
                Some(Outcome::Done) => assert_ne!(view.record.state, before, "{why}"),
                Some(Outcome::RolledBack { .. }) => {
                    undone += 1;
                    assert_eq!(view.record.state, before, "{why}");
                    assert_eq!(house.sim.world().shape(), world, "{why}");
                }
                other => panic!("{why}: {other:?}"),
            }
            assert!(view.busy.is_none());
        }
        assert!(undone > 0, "{:?} was never undone", case.request);
    }
}

/// What builds in two phases keeps the first: the VM is there, and off.
#[actix::test]
async fn a_cancel_between_two_phases_leaves_the_vm_off() {
    let mut ends = std::collections::BTreeSet::new();
    for at in 0.. {
        let house = Case { before: &[], request: STOP }.house().await;
        let restart = OpRequest::Restart { grace: GRACE };
        let Some((ended, _)) = house.cancelled_at(9, restart, at).await else { break };
        let state = house.state("web").await;
        match ended.op.outcome {
            Some(Outcome::Done) => assert_eq!(state, VmState::Running, "at call {at}"),
            Some(Outcome::RolledBack { .. }) => {
                assert_eq!(state, VmState::Stopped, "at call {at}");
                house.swept().await;
            }
            other => panic!("at call {at}: {other:?}"),
        }
        ends.insert(state.to_string());
    }
    assert!(ends.contains("stopped"), "{ends:?}");
}

#[actix::test]
async fn a_cancel_of_what_tears_down_is_refused_and_changes_nothing() {
    for case in TEARING_DOWN {
        let house = case.house().await;
        // It stays long enough in its first call to be cancelled there.
        house.sim.plan(At::Call(house.sim.calls()), Fault::Delay(Duration::from_millis(200)));
        let mut ticket = house.run(9, "web", case.request.clone()).await.unwrap();
        assert_eq!(house.cancel(9).await, Cancel::OnlyForward, "{:?}", case.request);
        assert_eq!(ticket.end().await.unwrap().op.outcome, Some(Outcome::Done));
        house.swept().await;
    }
}

#[actix::test]
async fn an_operation_that_has_ended_is_not_cancelled() {
    let house = Case { before: &[], request: STOP }.house().await;
    assert_eq!(house.cancel(1).await, Cancel::NotRunning);
}
