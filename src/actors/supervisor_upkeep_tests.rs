//! Restart policies through the real actors and store: what comes back, what stays off, and that it is
//! so whoever dies meanwhile.

use super::reboot::reboot;
use super::*;
use crate::model::{
    ConditionKind, HealthChange, HealthCheck, HealthStatus, RestartHistory, RestartPolicy, Wanted,
};

const ALWAYS: RestartPolicy = RestartPolicy::Always;
const ON_FAILURE: RestartPolicy = RestartPolicy::OnFailure { max: None };

impl House {
    async fn with_policy(&self, n: u8, name: &str, restart: RestartPolicy) -> VmId {
        let mut create = create(name, true);
        create.spec.restart = restart;
        let ended = self.supervisor.call(ctx(n), create).await.unwrap().end().await.unwrap();
        self.settles(name, VmState::Running).await;
        ended.op.vm.unwrap()
    }

    /// Another daemon on the same host, when the actors of this one have ended. Those of an operation
    /// that hangs never do, and do nothing.
    async fn next_daemon(self) -> Self {
        let Self { supervisor, deps, sim, _dir: dir, .. } = self;
        drop(supervisor);
        until("the daemon has ended", || Arc::strong_count(&deps) == 1 || sim.hanging() > 0).await;
        House::on(deps.store.clone(), sim, dir).await
    }

    /// Dead, cleaned up, and to be started again.
    async fn backs_off(&self, name: &str, vm: VmId) -> VmView {
        self.sim.crash(vm);
        let view = self.settles(name, VmState::Crashed).await;
        assert!(view.record.restarts.next_unix_ms.is_some(), "{view:?}");
        view
    }

    /// Waits until the time at which it would have been started has long passed, and sees that it was
    /// not.
    async fn stays_off(&self, name: &str, due: &VmView) {
        let at = due.record.restarts.next_unix_ms.unwrap() + 300;
        let clock = Arc::clone(&self.deps.ports.clock);
        until("the time has passed", || clock.unix_ms() > at).await;
        let view = self.view(name).await;
        let RestartHistory { next_unix_ms, count, .. } = view.record.restarts;
        assert_eq!((view.record.wanted, next_unix_ms, count), (Wanted::Stopped, None, 0));
        assert_eq!((view.record.state, view.busy), (VmState::Stopped, None));
        let kept = self.deps.store.vm(view.record.id).unwrap().unwrap();
        assert_eq!(kept, view.record, "durable");
    }

    fn kept(&self, vm: VmId) -> VmRecord {
        self.deps.store.vm(vm).unwrap().unwrap()
    }
}

#[actix::test]
async fn a_vm_that_dies_comes_back_as_its_policy_says() {
    let house = House::open(vec![], Duration::ZERO).await;
    let always = house.with_policy(1, "always", ALWAYS).await;
    let never = house.with_policy(2, "never", RestartPolicy::No).await;
    let first = house.view("always").await.handles.process;
    house.sim.crash(never);
    let due = house.backs_off("always", always).await;
    assert_eq!(due.record.wanted, Wanted::Running, "a crash is nobody's wish");
    let back = house.settles("always", VmState::Running).await;
    assert_ne!(back.handles.process, first);
    let RestartHistory { count, failures, next_unix_ms, up_unix_ms, .. } = back.record.restarts;
    assert_eq!((count, failures.len(), next_unix_ms), (1, 1, None));
    assert!(up_unix_ms.is_some() && back.record.last_failure.is_none());
    let off = house.settles("never", VmState::Crashed).await;
    assert_eq!(off.record.restarts, RestartHistory::default());
    let ops = house.deps.store.ops(10).unwrap();
    let starts = ops.iter().filter(|op| op.kind == OpKind::StartVm).count();
    assert_eq!(starts, 1, "an ordinary operation of its own");
}

#[actix::test]
async fn a_crash_loop_ends_in_an_error_that_a_start_leaves() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ALWAYS).await;
    let now = house.deps.ports.clock.unix_ms();
    let looped = move |kept: &mut VmRecord| {
        (kept.restarts.count, kept.restarts.failures) = (4, vec![now; 4]);
    };
    house.deps.store.update_vm(vm, now, looped).await.unwrap();
    let house = house.next_daemon().await;
    house.sim.crash(vm);
    let view = house.settles("web", VmState::Error).await;
    let failure = view.record.last_failure.unwrap();
    assert_eq!(failure.code, Code::CrashLoop);
    assert!(failure.message.contains("5 times in 10 minutes"), "{}", failure.message);
    assert!(failure.hints.iter().any(|hint| hint.contains("banger vm start web")));
    assert_eq!((view.record.restarts.next_unix_ms, view.handles), (None, VmHandles::default()));
    house.nothing_runs("after a crash loop").await;
    // It stays so for the next daemon, and for the next boot of the host.
    let house = house.next_daemon().await;
    assert_eq!(house.settles("web", VmState::Error).await.record.state, house.kept(vm).state);
    let house = reboot(house).await;
    house.settles("web", VmState::Error).await;
    house.bring_up(2, "web", OpRequest::Start).await.unwrap().end().await.unwrap();
    let view = house.settles("web", VmState::Running).await;
    assert_eq!((view.record.restarts.count, view.record.last_failure), (0, None));
    house.backs_off("web", vm).await;
    house.settles("web", VmState::Running).await;
}

#[actix::test]
async fn the_owners_word_sticks_during_back_off() {
    for request in [OpRequest::Stop { grace: Duration::ZERO }, OpRequest::Kill { signal: 9 }] {
        let house = House::open(vec![], Duration::ZERO).await;
        let vm = house.with_policy(1, "web", ALWAYS).await;
        let due = house.backs_off("web", vm).await;
        house.done(2, "web", request).await;
        house.stays_off("web", &due).await;
    }
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ALWAYS).await;
    house.backs_off("web", vm).await;
    house.done(2, "web", OpRequest::Delete).await;
    house.swept().await;
    assert!(house.deps.store.vms().unwrap().is_empty());
}

#[actix::test]
async fn the_owners_word_sticks_while_the_policys_start_is_under_way() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ALWAYS).await;
    house.sim.plan(At::Every("guest.await_ready".to_owned()), Fault::Hang);
    let due = house.backs_off("web", vm).await;
    let sim = Arc::clone(&house.sim);
    until("the guest is awaited", || sim.hanging() > 0).await;
    let stopped = house.done(2, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    assert_eq!(stopped.op.outcome, Some(Outcome::Done));
    house.sim.forget_faults();
    house.stays_off("web", &due).await;
    house.swept().await;
}

#[actix::test]
async fn a_stop_of_what_is_off_and_due_sticks_too() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ALWAYS).await;
    house.sim.plan(At::Every("net.ensure_nat".to_owned()), Fault::Refuse);
    house.backs_off("web", vm).await;
    let due = house.settles("web", VmState::Stopped).await;
    house.sim.forget_faults();
    let stopped = house.done(2, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    assert_eq!(stopped.op.outcome, Some(Outcome::Done));
    house.stays_off("web", &due).await;
    let again = house.done(3, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    assert!(matches!(again.op.outcome, Some(Outcome::Unchanged(_))));
}

#[actix::test]
async fn a_policy_taken_away_during_back_off_starts_nothing() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ALWAYS).await;
    let due = house.backs_off("web", vm).await;
    let changes = Changes { restart: Some(RestartPolicy::No), ..Changes::default() };
    house.done(2, "web", OpRequest::Set(changes)).await;
    let at = due.record.restarts.next_unix_ms.unwrap() + 300;
    let clock = Arc::clone(&house.deps.ports.clock);
    until("the time has passed", || clock.unix_ms() > at).await;
    let view = house.view("web").await;
    assert_eq!(
        (view.record.state, view.record.spec.restart),
        (VmState::Crashed, RestartPolicy::No)
    );
    let changes = Changes { restart: Some(ALWAYS), ..Changes::default() };
    house.done(3, "web", OpRequest::Set(changes)).await;
    house.bring_up(4, "web", OpRequest::Start).await.unwrap().end().await.unwrap();
    house.backs_off("web", vm).await;
    house.settles("web", VmState::Running).await;
}

#[actix::test]
async fn a_daemon_or_an_actor_that_dies_during_back_off_is_no_end_of_it() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ALWAYS).await;
    // The first daemon would start it as well: it is held up.
    house.sim.plan(At::Every("net.ensure_nat".to_owned()), Fault::Refuse);
    house.backs_off("web", vm).await;
    house.settles("web", VmState::Stopped).await;
    let count = house.kept(vm).restarts.count;
    let found = house.supervisor.call(ctx(2), FindVm("web".to_owned())).await.unwrap();
    assert!(matches!(found.handle.unwrap().call(ctx(2), PanicNow).await, Err(CallError::Gone)));
    house.sim.forget_faults();
    let back = house.settles("web", VmState::Running).await;
    assert_eq!(back.record.restarts.count, count, "what the host could not do is no failure");
    let next = house.next_daemon().await;
    next.sim.edit(|world| drop(world.processes.remove(&vm)));
    let third = next.next_daemon().await;
    third.settles("web", VmState::Running).await;
    assert_eq!(third.kept(vm).restarts.count, count + 1, "found dead, started again");
}

#[actix::test]
async fn a_daemon_that_dies_in_the_policys_start_has_it_tried_again() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.with_policy(1, "web", ON_FAILURE).await;
    house.sim.plan(At::Every("guest.await_ready".to_owned()), Fault::Hang);
    house.backs_off("web", vm).await;
    let sim = Arc::clone(&house.sim);
    until("the guest is awaited", || sim.hanging() > 0).await;
    house.sim.forget_faults();
    let next = house.next_daemon().await;
    next.settles("web", VmState::Running).await;
    assert_eq!(next.kept(vm).restarts.failures.len(), 1);
}

#[actix::test]
async fn what_the_host_cannot_serve_says_so_and_is_tried_again() {
    let house = House::open(vec![], Duration::ZERO).await;
    for (n, name) in [(1, "a"), (2, "b")] {
        let mut create = create(name, false);
        (create.spec.memory_mib, create.spec.restart) = ((1 << 20) - 512, ALWAYS);
        house.supervisor.call(ctx(n), create).await.unwrap().end().await.unwrap();
    }
    house.bring_up(3, "a", OpRequest::Start).await.unwrap().end().await.unwrap();
    let b = house.view("b").await.record.id;
    // As if it had been on, too, when the host was larger.
    let wanted =
        |kept: &mut VmRecord| (kept.wanted, kept.state) = (Wanted::Running, VmState::Stopped);
    house.deps.store.update_vm(b, 1, wanted).await.unwrap();
    let house = reboot(house).await;
    let views = async {
        loop {
            let (a, b) = (house.view("a").await, house.view("b").await);
            let (on, off) = match a.record.state {
                VmState::Running => (a, b),
                _ => (b, a),
            };
            if on.record.state == VmState::Running && off.record.last_failure.is_some() {
                return (on.record.spec.name.to_string(), off);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (on, off) = tokio::time::timeout(LIMIT, views).await.unwrap();
    let failure = off.record.last_failure.unwrap();
    assert!(failure.message.contains("memory"), "{failure}");
    let next = off.record.restarts.next_unix_ms;
    assert!(off.record.restarts.held > 0 && next.is_some());
    let id = off.record.id;
    until("it is durable", || house.kept(id).restarts.held > 0).await;
    house.done(4, &on, OpRequest::Stop { grace: Duration::ZERO }).await;
    let view = house.settles(off.record.spec.name.as_str(), VmState::Running).await;
    assert_eq!(view.record.last_failure, None);
}

#[actix::test]
async fn after_a_restart_of_the_host_each_vm_is_as_its_policy_says() {
    let house = House::open(vec![], Duration::ZERO).await;
    let mut n = 0;
    let mut next = || {
        n += 1;
        n
    };
    // How it is when the host goes down, under which policy, and whether it comes up again.
    let stop = || OpRequest::Stop { grace: Duration::ZERO };
    type Row = (&'static str, RestartPolicy, Option<(OpRequest, Asker)>, bool);
    let table: [Row; 9] = [
        ("on-always", ALWAYS, None, true),
        ("on-failing", ON_FAILURE, None, true),
        ("on-no", RestartPolicy::No, None, false),
        ("stopped", ALWAYS, Some((stop(), Asker::Owner)), false),
        ("clean-always", ALWAYS, Some((stop(), Asker::Host)), true),
        ("clean-failing", ON_FAILURE, Some((stop(), Asker::Host)), false),
        ("clean-no", RestartPolicy::No, Some((stop(), Asker::Host)), false),
        ("slept", ALWAYS, Some((OpRequest::Suspend, Asker::Owner)), false),
        ("put-to-sleep", RestartPolicy::No, Some((OpRequest::Suspend, Asker::Host)), true),
    ];
    for (name, policy, end, _) in table.clone() {
        house.with_policy(next(), name, policy).await;
        if let Some((request, by)) = end {
            let found = house.supervisor.call(ctx(0), FindVm(name.to_owned())).await.unwrap();
            let cmd = RunOp { request, request_hash: 1, by };
            let handle = found.handle.unwrap();
            handle.call(ctx(next()), cmd).await.unwrap().end().await.unwrap();
        }
    }
    let slept = house.view("put-to-sleep").await;
    let house = reboot(house).await;
    for (name, policy, end, comes_up) in table {
        if comes_up {
            house.settles(name, VmState::Running).await;
            continue;
        }
        let view = house.view(name).await;
        let suspended = matches!(end, Some((OpRequest::Suspend, _)));
        let state = if suspended { VmState::Suspended } else { VmState::Stopped };
        assert_eq!(view.record.state, state, "{name}, {policy}");
        assert_eq!(view.record.restarts.next_unix_ms, None, "{name}, {policy}");
    }
    let resumed = house.view("put-to-sleep").await;
    assert_eq!(slept.record.wanted, Wanted::Running);
    let ops = house.deps.store.ops(100).unwrap();
    let kinds: Vec<_> = ops.iter().filter(|op| op.vm == Some(resumed.record.id)).collect();
    assert!(kinds.iter().any(|op| op.kind == OpKind::ResumeVm), "it went on, and did not boot");
}

#[actix::test]
async fn starts_by_policies_are_so_many_at_one_time() {
    let house = House::open(vec![], Duration::from_millis(40)).await;
    let names: Vec<_> = (1..=6).map(|n| (n, format!("vm{n}"))).collect();
    for (n, name) in &names {
        house.with_policy(*n, name, ALWAYS).await;
    }
    let house = reboot(house).await;
    let mut most = 0;
    let all = async {
        loop {
            let views = house.supervisor.call(ctx(0), ListVms).await.unwrap();
            let count = |state| views.iter().filter(|view| view.record.state == state).count();
            most = most.max(count(VmState::Starting));
            if count(VmState::Running) == names.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap();
    assert_eq!(most, 2, "of two that are allowed");
}

impl House {
    async fn checked(&self, n: u8, name: &str, restart: RestartPolicy) -> VmId {
        let mut create = create(name, true);
        let second = Duration::from_secs(1);
        let check =
            HealthCheck { interval: second, retries: 2, ..HealthCheck::of("true".to_owned()) };
        (create.spec.restart, create.spec.health) = (restart, Some(check));
        let ended = self.supervisor.call(ctx(n), create).await.unwrap().end().await.unwrap();
        ended.op.vm.unwrap()
    }

    /// Until the health checks of the VM have come to that.
    async fn health(&self, name: &str, status: HealthStatus) -> VmView {
        let waited = async {
            loop {
                let view = self.view(name).await;
                if view.health.as_ref().is_some_and(|health| health.status == status) {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, waited).await.expect("the health is so")
    }

    fn ill(&self, vm: VmId, ill: bool) {
        self.sim.edit(|world| {
            if ill {
                world.ill.insert(vm)
            } else {
                world.ill.remove(&vm)
            };
        });
    }
}

#[actix::test]
async fn an_unhealthy_vm_says_so_and_is_healthy_again() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.checked(1, "web", RestartPolicy::No).await;
    let well = house.health("web", HealthStatus::Healthy).await;
    house.ill(vm, true);
    house.health("web", HealthStatus::Failing).await;
    let view = house.health("web", HealthStatus::Unhealthy).await;
    let condition = view.conditions.first().expect("a condition");
    assert_eq!((condition.kind, view.record.state), (ConditionKind::Unhealthy, VmState::Running));
    assert!(condition.reason.contains("failed 2 times: exit status 1"), "{condition:?}");
    assert_eq!(view.record.restarts.next_unix_ms, None);
    // An operation that leaves it running leaves what is known of it.
    let changes = Changes { disk: Some(Size::from_mib(128)), ..Changes::default() };
    house.done(2, "web", OpRequest::Set(changes)).await;
    assert_eq!(
        house.view("web").await.health.map(|health| health.status),
        Some(HealthStatus::Unhealthy)
    );
    house.ill(vm, false);
    let view = house.health("web", HealthStatus::Healthy).await;
    assert!(view.conditions.is_empty());
    assert_eq!(view.handles.process, well.handles.process, "it was not touched");
    // No more checks, and nothing left of them.
    let none = HealthChange { command: Some(String::new()), ..HealthChange::default() };
    let changes = Changes { health: Some(none), ..Changes::default() };
    house.done(3, "web", OpRequest::Set(changes)).await;
    let gone = async {
        while house.view("web").await.health.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("it is forgotten");
    assert_eq!(house.view("web").await.record.spec.health, None);
}

#[actix::test]
async fn an_unhealthy_vm_is_restarted_by_its_policy_and_counted() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.checked(1, "web", ON_FAILURE).await;
    let first = house.settles("web", VmState::Running).await.handles.process;
    house.ill(vm, true);
    house.health("web", HealthStatus::Unhealthy).await;
    until("it is durable", || house.kept(vm).restarts.next_unix_ms.is_some()).await;
    let sim = Arc::clone(&house.sim);
    let other = move || sim.world().processes.get(&vm).map(|process| process.identity.clone());
    until("another process", || other().is_some() && other() != first).await;
    // Not sooner: who is well again before its restart is due keeps its process.
    house.ill(vm, false);
    let view = house.settles("web", VmState::Running).await;
    assert_eq!((view.record.restarts.count, view.record.restarts.failures.len()), (1, 1));
    assert!(view.conditions.is_empty());
    let ops = house.deps.store.ops(10).unwrap();
    assert!(ops.iter().any(|op| op.kind == OpKind::RestartVm), "an ordinary operation");
    house.health("web", HealthStatus::Healthy).await;
    // One that is stopped is not checked.
    house.done(2, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    let calls = house.sim.calls_of("guest.check");
    let view = house.settles("web", VmState::Stopped).await;
    assert_eq!(view.health, None);
    let clock = Arc::clone(&house.deps.ports.clock);
    let later = clock.unix_ms() + 1200;
    until("more than an interval", || clock.unix_ms() > later).await;
    assert_eq!(house.sim.calls_of("guest.check"), calls);
}
