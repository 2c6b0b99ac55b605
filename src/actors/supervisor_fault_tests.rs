//! What somebody does to the host behind our back: it is noticed, shown with its reason, repaired
//! where it can be, and there is a way out where it cannot.

use super::*;
use crate::actors::{ClockWatchActor, ClockWatchDeps, NetHealth, NetWatchActor, NetWatchDeps};
use crate::model::{Condition, ConditionKind};

impl House {
    /// With the watch of the network, as the daemon has it, and a VM that runs and has NAT.
    async fn watched() -> (Self, VmId, watch::Receiver<NetHealth>) {
        let house = Self::open(vec![], Duration::ZERO).await;
        house.create(1, "web", true).await.unwrap().end().await.unwrap();
        let vm = house.settles("web", VmState::Running).await.record.id;
        until("warm taps", || house.sim.world().taps.len() >= 3).await;
        let (health, seen) = watch::channel(NetHealth::default());
        NetWatchActor::launch(NetWatchDeps {
            net: Arc::clone(&house.deps.ports.net),
            taps: house.taps.clone(),
            supervisor: house.supervisor.clone(),
            events: house.deps.events.clone(),
            mint: house.deps.mint.clone(),
            health,
            bridge: "br".to_owned(),
            every: Duration::from_millis(20),
        });
        (house, vm, seen)
    }

    /// Waits until the VM has this condition, or has none.
    pub(super) async fn condition(
        &self,
        vm: &str,
        kind: Option<ConditionKind>,
    ) -> Option<Condition> {
        let waited = async {
            loop {
                let conditions = self.view(vm).await.conditions;
                let found = conditions.iter().find(|one| Some(one.kind) == kind);
                if found.is_some() || (kind.is_none() && conditions.is_empty()) {
                    return found.cloned();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, waited).await;
        waited.unwrap_or_else(|_| panic!("never: {kind:?}"))
    }

    pub(super) async fn heard(&self, what: &str) {
        let mut events = crate::actors::events::Tail::from(&self.deps.store, 1);
        let told = async {
            while let Some(event) = events.next().await.unwrap() {
                if matches!(event.kind, EventKind::Note { text } if text.contains(what)) {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(LIMIT, told).await.is_ok(), "never heard: {what}");
    }
}

fn at(name: &str) -> At {
    At::Every(name.to_owned())
}

#[actix::test]
async fn a_bridge_taken_away_and_rules_flushed_are_made_again() {
    let (house, ..) = House::watched().await;
    let before = house.sim.world();
    house.sim.edit(|world| {
        world.bridge = false;
        world.loose = world.taps.clone();
    });
    until("the bridge with all taps", || house.sim.world() == before).await;
    house.heard("made again: the bridge").await;
    house.heard("put on the bridge again: web").await;
    house.sim.edit(|world| {
        world.flushed = true;
        world.nat.clear();
    });
    until("the rules", || house.sim.world() == before).await;
    house.heard("made again: the nftables table").await;
    house.heard("NAT given again to: web").await;
    // Rules of nobody go, those of VMs stay.
    house.sim.edit(|world| world.nat.extend([(VmId([9; 16]), [10, 9, 0, 99].into())]));
    until("no rule of nobody", || house.sim.world() == before).await;
    assert!(house.view("web").await.conditions.is_empty());
}

#[actix::test]
async fn a_tap_taken_from_a_vm_is_told_until_a_restart_gives_it_another() {
    let (house, vm, _) = House::watched().await;
    let tap = house.view("web").await.handles.tap.unwrap();
    house.sim.edit(|world| world.taps.retain(|there| *there != tap));
    let seen = house.condition("web", Some(ConditionKind::Network)).await.unwrap();
    assert!(seen.reason.contains(&tap.0), "{seen:?}");
    assert!(seen.exit.contains("banger vm restart web"), "{seen:?}");
    assert!(seen.since_unix_ms > 0);
    house.heard("web: network: its tap").await;
    assert!(!house.sim.world().taps.contains(&tap), "another in its place helps nobody");
    assert_eq!(house.state("web").await, VmState::Running);
    let done = house.bring_up(2, "web", OpRequest::Restart { grace: LIMIT }).await.unwrap();
    assert_eq!({ done }.end().await.unwrap().op.outcome, Some(Outcome::Done));
    house.condition("web", None).await;
    let world = house.sim.world();
    let tap = house.view("web").await.handles.tap.unwrap();
    assert!(world.taps.contains(&tap) && world.processes.contains_key(&vm));
}

#[actix::test]
async fn free_taps_that_are_taken_away_are_made_again() {
    let (house, ..) = House::watched().await;
    let before = house.sim.world();
    let own = house.view("web").await.handles.tap.unwrap();
    house.sim.edit(|world| world.taps.retain(|tap| *tap == own));
    until("the pool", || house.sim.world() == before).await;
}

#[actix::test]
async fn a_bridge_that_cannot_be_made_again_is_shown_at_every_vm_and_tried_again() {
    let (house, _, health) = House::watched().await;
    let before = house.sim.world();
    house.sim.plan(at("net.ensure_bridge"), Fault::Refuse);
    house.sim.edit(|world| world.bridge = false);
    let seen = house.condition("web", Some(ConditionKind::Network)).await.unwrap();
    assert!(seen.reason.contains("the bridge cannot be made again"), "{seen:?}");
    assert!(health.borrow().problem.as_ref().is_some_and(|why| why.contains("refused")));
    house.sim.forget_faults();
    house.condition("web", None).await;
    house.heard("web: network no more").await;
    until("no problem", || health.borrow().problem.is_none()).await;
    assert_eq!(house.sim.world(), before);
}

#[actix::test]
async fn without_its_helper_a_vm_runs_on_and_says_so() {
    let (house, vm, health) = House::watched().await;
    house.sim.plan(at("net.survey"), Fault::Refuse);
    let seen = house.condition("web", Some(ConditionKind::NoHelper)).await.unwrap();
    assert!(seen.exit.contains("banger-helper"), "{seen:?}");
    assert!(health.borrow().problem.is_some());
    assert!(house.sim.world().processes.contains_key(&vm));
    house.sim.forget_faults();
    house.condition("web", None).await;
    until("no problem", || health.borrow().problem.is_none()).await;
}

#[actix::test]
async fn a_vmm_that_somebody_stopped_is_told_and_ends_all_the_same() {
    let (house, vm, _) = House::watched().await;
    let stop = |stopped| {
        house.sim.edit(|world| world.stopped = if stopped { [vm].into() } else { [].into() });
    };
    stop(true);
    let seen = house.condition("web", Some(ConditionKind::VmmStopped)).await.unwrap();
    assert!(seen.exit.contains("kill -CONT"), "{seen:?}");
    stop(false);
    house.condition("web", None).await;
    stop(true);
    house.condition("web", Some(ConditionKind::VmmStopped)).await;
    let grace = Duration::from_millis(50);
    let done = house.done(2, "web", OpRequest::Stop { grace }).await;
    assert_eq!(done.op.outcome, Some(Outcome::Done));
    let view = house.settles("web", VmState::Stopped).await;
    assert!(view.conditions.is_empty() && house.sim.world().processes.is_empty());
}

#[actix::test]
async fn a_guest_that_does_not_answer_is_told_until_it_does() {
    let (house, ..) = House::watched().await;
    house.sim.plan(at("guest.ping"), Fault::Refuse);
    let seen = house.condition("web", Some(ConditionKind::Unresponsive)).await.unwrap();
    assert!(seen.exit.contains("banger vm restart web"), "{seen:?}");
    house.sim.forget_faults();
    house.condition("web", None).await;
    house.heard("web: unresponsive no more").await;
}

#[actix::test]
async fn a_host_that_slept_or_whose_clock_was_set_sets_the_clocks_of_its_guests() {
    let house = House::open(vec![], Duration::ZERO).await;
    for (n, name) in [(1, "web"), (2, "db")] {
        house.create(n, name, true).await.unwrap().end().await.unwrap();
    }
    let told = || house.sim.calls_of("guest.set_clock");
    ClockWatchActor::launch(ClockWatchDeps {
        ports: house.deps.ports.clone(),
        supervisor: house.supervisor.clone(),
        events: house.deps.events.clone(),
        mint: house.deps.mint.clone(),
        every: Duration::from_millis(10),
    });
    let asked = house.deps.ports.clock.marks();
    house.sim.plan(At::Nth("guest.set_clock".to_owned(), 0), Fault::Refuse);
    house.sim.slept(3_600_000);
    until("both guests told, one at the second try", || told() == 3).await;
    house.heard("the host slept for 3600").await;
    house.heard("clocks of guests set: 2").await;
    house.sim.set_clock_by(-7_200_000);
    until("both guests told again", || told() == 5).await;
    house.heard("set 7200").await;
    assert!(house.deps.ports.clock.marks().unix_ms < asked.unix_ms, "the clock was set back");
}

#[actix::test]
async fn a_watch_that_cannot_be_kept_is_no_death() {
    let house = House::open(vec![], Duration::ZERO).await;
    house.create(1, "web", true).await.unwrap().end().await.unwrap();
    let vm = house.settles("web", VmState::Running).await.record.id;
    house.sim.plan(at("process.exited"), Fault::Refuse);
    let watched = || house.sim.calls_of("process.exited");
    let before = watched();
    let changes = Changes { disk: Some(Size::from_mib(128)), ..Changes::default() };
    house.done(2, "web", OpRequest::Set(changes)).await; // watched anew after it
    until("the watch is tried again", || watched() > before + 1).await;
    assert_eq!(house.state("web").await, VmState::Running);
    assert!(house.sim.world().processes.contains_key(&vm));
    house.sim.forget_faults();
    house.sim.crash(vm);
    house.settles("web", VmState::Crashed).await;
}
