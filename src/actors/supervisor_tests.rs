//! Supervision on the simulated host: the whole life of VMs through the real actors and store.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::actors::events::EventSink;
use crate::actors::mint::Mint;
use crate::actors::vm::{Asker, Cancel, CancelOp, Changes, PanicNow, recover};
use crate::actors::{TapPoolActor, TapPoolConfig, TapPoolHandle};
use crate::model::{
    DiskBackend, ImageRecord, KernelRecord, Outcome, RestartPolicy, RootDisk, Size, VmmChoice,
};
use crate::ops::Settings;
use crate::ports::{ImageHost, ImageRecipe, KernelRecipe};
use crate::sim::{At, Fault, SimOptions, SimWorld, World};
use crate::store::Store;

#[path = "supervisor_cancel_tests.rs"]
mod cancels;
#[path = "tests/crashes.rs"]
mod crashes;
#[path = "supervisor_disk_tests.rs"]
mod disks;
#[path = "tests/expected.rs"]
mod expected;
#[path = "supervisor_fault_tests.rs"]
mod faults;
#[path = "tests/image_crashes.rs"]
mod image_crashes;
#[path = "supervisor_ledger_tests.rs"]
mod ledger;
#[path = "supervisor_reboot_tests.rs"]
mod reboot;
#[path = "tests/sequences.rs"]
mod sequences;
#[path = "tests/stage.rs"]
mod stage;
#[path = "tests/stock.rs"]
mod stock;
#[path = "supervisor_upkeep_tests.rs"]
mod upkeep;
#[path = "tests/wishes.rs"]
mod wishes;

use stock::stock;

struct House {
    supervisor: Handle<SupervisorActor>,
    deps: Arc<VmDeps>,
    taps: TapPoolHandle,
    sim: Arc<SimWorld>,
    /// The host before the first VM, warm taps included.
    empty: World,
    _dir: Arc<tempfile::TempDir>,
}

const LIMIT: Duration = Duration::from_secs(20);

fn op(n: u8) -> OpId {
    OpId::from_parts(u64::from(n), [n; 10])
}

fn ctx(n: u8) -> OpCtx {
    OpCtx::within(op(n), LIMIT)
}

/// Waits for a condition, not for a time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waited).await.is_ok(), "never: {what}");
}

impl House {
    async fn open(faults: Vec<(At, Fault)>, boot: Duration) -> Self {
        let subnet = "10.9.0.0/24".parse().unwrap();
        let mut options = SimOptions::new(subnet);
        (options.faults, options.boot) = (faults, boot);
        let sim = Arc::new(SimWorld::new(options));
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let store = Store::open(dir.path()).unwrap();
        stock(&store, &sim).await;
        Self::on(store, sim, dir).await
    }

    /// Brings the actors up on a host and a store, as the daemon does.
    async fn on(store: Store, sim: Arc<SimWorld>, dir: Arc<tempfile::TempDir>) -> Self {
        Self::with_memory(1 << 20, store, sim, dir).await
    }

    async fn with_memory(
        memory_mib: u64,
        store: Store,
        sim: Arc<SimWorld>,
        dir: Arc<tempfile::TempDir>,
    ) -> Self {
        let (mut ports, _) = crate::sim::ports(SimOptions::new("10.9.0.0/24".parse().unwrap()));
        ports.hypervisor = Arc::<SimWorld>::clone(&sim);
        ports.process = Arc::<SimWorld>::clone(&sim);
        ports.net = Arc::<SimWorld>::clone(&sim);
        ports.disk = Arc::<SimWorld>::clone(&sim);
        ports.guest = Arc::<SimWorld>::clone(&sim);
        ports.images = Arc::<SimWorld>::clone(&sim);
        ports.names = Arc::<SimWorld>::clone(&sim);
        ports.clock = Arc::<SimWorld>::clone(&sim);
        let stop = CancellationToken::new();
        let events = EventSink::new(store.clone(), Arc::clone(&ports.clock));
        let mint = Mint::new(Arc::clone(&ports.clock));
        let config =
            TapPoolConfig { prefix: "tap".to_owned(), size: 2, refill_after: Duration::ZERO };
        let net = Arc::clone(&ports.net);
        let taps = TapPoolActor::launch(config, store.clone(), net, mint.clone(), events.clone());
        ports.taps = Arc::new(taps.clone());
        let mut settings = Settings::new("10.9.0.0/24".parse().unwrap(), vec![]);
        settings.retry_pause = Duration::from_millis(1);
        settings.grace = Duration::from_millis(200);
        settings.power_wait = Duration::from_millis(50);
        let settings = Arc::new(settings);
        let deps = Arc::new(VmDeps { store, ports, settings, events, mint });
        let known = recover(&deps).await.unwrap();
        let host = HostLimits {
            memory_mib,
            overhead_mib: 0,
            cpus: 8,
            disk_reserve: Size::from_bytes(0),
            max_vms: 300,
            parallel_starts: 2,
        };
        let supervisor = SupervisorActor::launch(Arc::clone(&deps), host, TaskTracker::new(), stop);
        supervisor.call(ctx(0), Adopt(known)).await.unwrap();
        until("warm taps", || sim.world().taps.len() >= 2).await;
        let empty = sim.world().shape();
        Self { supervisor, deps, taps, sim, empty, _dir: dir }
    }

    async fn create(&self, n: u8, name: &str, start: bool) -> Result<Ticket, CallError> {
        self.supervisor.call(ctx(n), create(name, start)).await
    }

    async fn run(&self, n: u8, vm: &str, request: OpRequest) -> Result<Ticket, CallError> {
        let found = self.supervisor.call(ctx(n), FindVm(vm.to_owned())).await?;
        found.handle?.call(ctx(n), RunOp { request, request_hash: 1, by: Asker::Owner }).await
    }

    async fn bring_up(&self, n: u8, vm: &str, request: OpRequest) -> Result<Ticket, CallError> {
        let cmd = RunOp { request, request_hash: 1, by: Asker::Owner };
        self.supervisor.call(ctx(n), BringUp { vm: vm.to_owned(), cmd }).await
    }

    async fn done(&self, n: u8, vm: &str, request: OpRequest) -> Ended {
        self.run(n, vm, request).await.unwrap().end().await.unwrap()
    }

    async fn view(&self, vm: &str) -> VmView {
        self.supervisor.call(ctx(0), FindVm(vm.to_owned())).await.unwrap().view
    }

    async fn state(&self, vm: &str) -> VmState {
        self.view(vm).await.record.state
    }

    /// Polls the actor until the VM is in the state and idle.
    async fn settles(&self, vm: &str, state: VmState) -> VmView {
        let waited = async {
            loop {
                let view = self.view(vm).await;
                if view.record.state == state && view.busy.is_none() {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, waited).await.expect("the VM settles")
    }

    /// The host as before the first VM, but for disks.
    async fn swept(&self) {
        let sim = Arc::clone(&self.sim);
        let empty = World { disks: Default::default(), ..self.empty.clone() };
        until("an empty host", || {
            World { disks: Default::default(), ..sim.world().shape() } == empty
        })
        .await;
    }
}

fn create(name: &str, start: bool) -> CreateVm {
    let spec = VmSpec {
        name: name.parse().unwrap(),
        image: "debian".to_owned(),
        kernel: String::new(),
        vcpu: 1,
        memory_mib: 256,
        disk: Size::from_mib(64),
        work_disk: Size::from_mib(64),
        nat: true,
        env: vec![],
        vmm: VmmChoice::Auto,
        root: RootDisk::default(),
        console: false,
        warm: false,
        restart: RestartPolicy::No,
        health: None,
    };
    CreateVm { spec, disk: DiskChoice::Auto, start, runs: false, request_hash: 1 }
}

#[actix::test]
async fn a_whole_life_leaves_the_host_as_it_was() {
    let house = House::open(vec![], Duration::ZERO).await;
    let ended = house.create(1, "web", true).await.unwrap().end().await.unwrap();
    assert_eq!(ended.op.outcome, Some(Outcome::Done));
    let view = house.settles("web", VmState::Running).await;
    assert!(view.handles.process.is_some() && view.handles.tap.is_some());
    let grace = Duration::from_secs(1);
    house.done(2, "web", OpRequest::Stop { grace }).await;
    assert_eq!(house.settles("web", VmState::Stopped).await.handles, VmHandles::default());
    house.swept().await;
    let again = house.done(3, "web", OpRequest::Stop { grace }).await;
    assert!(matches!(again.op.outcome, Some(Outcome::Unchanged(_))));
    house.done(4, "web", OpRequest::Start).await;
    house.done(5, "web", OpRequest::Restart { grace }).await;
    house.settles("web", VmState::Running).await;
    house.done(6, "web", OpRequest::Delete).await;
    let find = || house.supervisor.call(ctx(7), FindVm("web".to_owned()));
    assert!(matches!(find().await, Err(CallError::Refused(f)) if f.code == Code::NotFound));
    house.swept().await;
    assert!(house.sim.world().disks.is_empty());
    house.create(8, "web", false).await.unwrap().end().await.unwrap(); // the name is free again
}

#[actix::test]
async fn one_operation_at_a_time_and_a_retry_is_harmless() {
    let house = House::open(vec![], Duration::from_millis(100)).await;
    house.create(1, "web", false).await.unwrap().end().await.unwrap();
    let calls = house.sim.calls_of("process.ensure_spawned");
    let (first, again, other) = tokio::join!(
        house.run(2, "web", OpRequest::Start),
        house.run(2, "web", OpRequest::Start),
        house.run(3, "web", OpRequest::Restart { grace: LIMIT }),
    );
    assert!(matches!(&other, Err(CallError::Refused(f)) if f.code == Code::Busy), "{other:?}");
    assert_eq!(first.unwrap().end().await.unwrap().op.outcome, Some(Outcome::Done));
    assert_eq!(again.unwrap().end().await.unwrap().op.id, op(2));
    assert_eq!(house.sim.calls_of("process.ensure_spawned"), calls + 1);
}

#[actix::test]
async fn creating_twice_under_one_id_makes_one_vm() {
    let house = House::open(vec![], Duration::ZERO).await;
    let mut first = house.create(1, "web", true).await.unwrap();
    first.end().await.unwrap();
    let again = house.create(1, "web", true).await.unwrap().end().await.unwrap();
    assert_eq!(again.op.outcome, Some(Outcome::Done));
    let taken = house.create(2, "web", true).await;
    assert!(matches!(taken, Err(CallError::Refused(f)) if f.code == Code::Exists));
    assert_eq!(house.supervisor.call(ctx(3), ListVms).await.unwrap().len(), 1);
}

#[actix::test]
async fn a_stop_interrupts_a_start_that_hangs() {
    let hang = vec![(At::Every("guest.await_ready".to_owned()), Fault::Hang)];
    let house = House::open(hang, Duration::ZERO).await;
    let mut creation = house.create(1, "web", true).await.unwrap();
    let sim = Arc::clone(&house.sim);
    until("the guest is awaited", || sim.calls_of("guest.await_ready") > 0).await;
    house.done(2, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    let undone = creation.end().await.unwrap();
    assert!(matches!(undone.op.outcome, Some(Outcome::RolledBack { .. })), "{undone:?}");
    house.settles("web", VmState::Stopped).await;
    house.swept().await;
}

#[actix::test]
async fn a_delete_interrupts_a_creation_and_nothing_is_left() {
    let hang = vec![(At::Every("guest.await_ready".to_owned()), Fault::Hang)];
    let house = House::open(hang, Duration::ZERO).await;
    let _creation = house.create(1, "web", true).await.unwrap();
    let sim = Arc::clone(&house.sim);
    until("the guest is awaited", || sim.calls_of("guest.await_ready") > 0).await;
    house.done(2, "web", OpRequest::Delete).await;
    house.swept().await;
    assert!(house.sim.world().disks.is_empty());
    assert!(house.deps.store.vms().unwrap().is_empty());
}

#[actix::test]
async fn cancelling_a_creation_keeps_the_vm_stopped() {
    let house = House::open(vec![], Duration::from_secs(60)).await;
    let mut creation = house.create(1, "web", true).await.unwrap();
    let sim = Arc::clone(&house.sim);
    until("the guest is awaited", || sim.calls_of("guest.await_ready") > 0).await;
    let found = house.supervisor.call(ctx(2), FindVm("web".to_owned())).await.unwrap();
    let cancel = found.handle.unwrap().call(ctx(2), CancelOp(op(1))).await;
    assert_eq!(cancel.unwrap(), Cancel::Begun);
    let undone = creation.end().await.unwrap();
    assert_eq!(undone.failure.map(|failure| failure.code), Some(Code::Cancelled));
    house.settles("web", VmState::Stopped).await;
    house.swept().await;
}

#[actix::test]
async fn a_creation_that_fails_leaves_no_name_behind() {
    let full = vec![(At::Every("disk.ensure_vm_disks".to_owned()), Fault::NoSpace)];
    let house = House::open(full, Duration::ZERO).await;
    let undone = house.create(1, "web", true).await.unwrap().end().await.unwrap();
    assert_eq!(undone.failure.map(|failure| failure.code), Some(Code::NoSpace));
    assert!(undone.view.is_none());
    house.sim.forget_faults();
    house.create(2, "web", true).await.unwrap().end().await.unwrap();
    house.settles("web", VmState::Running).await;
}

#[actix::test]
async fn a_vmm_that_dies_is_a_crash_and_leaves_nothing() {
    let house = House::open(vec![], Duration::ZERO).await;
    let vm = house.create(1, "web", true).await.unwrap().end().await.unwrap().op.vm.unwrap();
    house.settles("web", VmState::Running).await;
    assert!(house.sim.crash(vm));
    let view = house.settles("web", VmState::Crashed).await;
    house.swept().await;
    let failure = view.record.last_failure.expect("a reason");
    assert_eq!(failure.code, Code::GuestDied);
    assert!(view.record.last_exit.is_some());
    house.done(2, "web", OpRequest::Start).await;
    let view = house.settles("web", VmState::Running).await;
    assert_eq!((view.record.last_failure, view.record.last_exit), (None, None));
}

#[actix::test]
async fn an_undo_that_fails_is_an_error_that_can_be_deleted() {
    let faults = vec![
        (At::Every("guest.await_ready".to_owned()), Fault::Refuse),
        (At::Every("disk.remove_run_dir".to_owned()), Fault::Refuse),
    ];
    let house = House::open(faults, Duration::ZERO).await;
    let stuck = house.create(1, "web", true).await.unwrap().end().await.unwrap();
    assert!(matches!(stuck.op.outcome, Some(Outcome::Stuck { .. })));
    assert_eq!(house.state("web").await, VmState::Error);
    house.sim.forget_faults();
    let ended = house.done(2, "web", OpRequest::Delete).await;
    assert_eq!(ended.op.outcome, Some(Outcome::Done));
    house.swept().await;
    assert!(house.sim.world().disks.is_empty());
}

#[actix::test]
async fn a_full_queue_refuses_but_never_the_stop() {
    let house = House::open(vec![], Duration::from_secs(60)).await;
    let _creation = house.create(1, "web", true).await.unwrap();
    let found = house.supervisor.call(ctx(2), FindVm("web".to_owned())).await.unwrap();
    let vm = found.handle.unwrap();
    let restart =
        RunOp { request: OpRequest::Restart { grace: LIMIT }, request_hash: 1, by: Asker::Owner };
    let crowd = (0..=VM_SLOTS).map(|_| vm.call(ctx(3), restart.clone()));
    let stop = RunOp {
        request: OpRequest::Stop { grace: Duration::ZERO },
        request_hash: 1,
        by: Asker::Owner,
    };
    let (crowd, stopped) = tokio::join!(futures::future::join_all(crowd), vm.call(ctx(4), stop));
    assert!(matches!(crowd.last(), Some(Err(CallError::Overloaded))));
    stopped.unwrap().end().await.unwrap();
    house.settles("web", VmState::Stopped).await;
}

#[actix::test]
async fn a_panic_costs_the_actor_not_the_operation() {
    let house = House::open(vec![], Duration::from_millis(300)).await;
    let mut creation = house.create(1, "web", true).await.unwrap();
    let found = house.supervisor.call(ctx(2), FindVm("web".to_owned())).await.unwrap();
    let vm = found.handle.unwrap();
    assert!(matches!(vm.call(ctx(2), PanicNow).await, Err(CallError::Gone)));
    assert_eq!(creation.end().await.unwrap().op.outcome, Some(Outcome::Done));
    house.settles("web", VmState::Running).await;
    house.done(3, "web", OpRequest::Delete).await; // the new actor knows its VM
    house.swept().await;
}

#[actix::test]
async fn dying_again_and_again_ends_in_quarantine() {
    let house = House::open(vec![], Duration::ZERO).await;
    house.create(1, "web", false).await.unwrap().end().await.unwrap();
    let lookup = || house.supervisor.call(ctx(2), FindVm("web".to_owned()));
    tokio::time::pause();
    for _ in 0..4 {
        let vm = loop {
            match lookup().await.unwrap().handle {
                Ok(vm) if vm.is_up() => break vm,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        assert!(matches!(vm.call(ctx(3), PanicNow).await, Err(CallError::Gone)));
    }
    let quarantined = lookup().await.unwrap().handle;
    assert!(matches!(quarantined, Err(CallError::Refused(f)) if f.code == Code::Internal));
}

#[actix::test]
async fn a_new_daemon_adopts_what_runs_and_cleans_what_died() {
    let house = House::open(vec![], Duration::ZERO).await;
    for (n, name) in [(1, "lives"), (2, "dies")] {
        house.create(n, name, true).await.unwrap().end().await.unwrap();
        house.settles(name, VmState::Running).await;
    }
    let lives = house.view("lives").await;
    let dies = house.view("dies").await.record.id;
    let (store, sim, dir) =
        (house.deps.store.clone(), Arc::clone(&house.sim), Arc::clone(&house._dir));
    // The first daemon's actors stay, but nobody asks them: their notices reach only themselves.
    sim.edit(|world| drop(world.processes.remove(&dies)));
    let next = House::on(store, sim, dir).await;
    let adopted = next.settles("lives", VmState::Running).await;
    assert_eq!(adopted.handles.process, lives.handles.process);
    assert_eq!(adopted.handles.guest_boot_id, lives.handles.guest_boot_id);
    next.settles("dies", VmState::Crashed).await;
    let sim = Arc::clone(&next.sim);
    until("the dead one's things are gone", || {
        let world = sim.world();
        world.run_dirs.len() == 1 && world.nat.len() == 1 && world.configs.len() == 1
    })
    .await;
    for (n, name) in [(3, "lives"), (4, "dies")] {
        next.done(n, name, OpRequest::Delete).await;
    }
    let sim = Arc::clone(&next.sim);
    until("an empty host", || sim.world().disks.is_empty() && sim.world().run_dirs.is_empty())
        .await;
}

#[actix::test]
async fn losing_the_handles_leaks_nothing() {
    for dies in [false, true] {
        let house = House::open(vec![], Duration::ZERO).await;
        let vm = house.create(1, "web", true).await.unwrap().end().await.unwrap().op.vm.unwrap();
        let before = house.settles("web", VmState::Running).await.handles;
        let (store, sim, dir) =
            (house.deps.store.clone(), Arc::clone(&house.sim), Arc::clone(&house._dir));
        store.put_handles(vm, VmHandles::default()).await.unwrap();
        if dies {
            sim.edit(|world| drop(world.processes.remove(&vm)));
        }
        let next = House::on(store, sim, dir).await;
        if dies {
            next.settles("web", VmState::Crashed).await;
        } else {
            let found = next.settles("web", VmState::Running).await.handles;
            assert_eq!((found.process, found.tap), (before.process, before.tap));
        }
        next.done(2, "web", OpRequest::Delete).await;
        let sim = Arc::clone(&next.sim);
        let empty = house.empty.clone();
        until("the host as before the first VM", || sim.world().shape() == empty).await;
    }
}

#[actix::test]
async fn a_hundred_creations_at_once_share_nothing() {
    let house = House::open(vec![], Duration::ZERO).await;
    let creations = (0..100_u8).map(|n| {
        let (house, name) = (&house, format!("vm{n}"));
        async move { house.create(n + 1, &name, true).await.unwrap().end().await.unwrap() }
    });
    let ended = futures::future::join_all(creations).await;
    assert!(ended.iter().all(|ended| ended.op.outcome == Some(Outcome::Done)));
    let views = house.supervisor.call(ctx(0), ListVms).await.unwrap();
    let distinct = |of: fn(&VmView) -> String| {
        views.iter().map(of).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(distinct(|view| view.record.address.to_string()), 100);
    assert_eq!(distinct(|view| view.handles.tap.clone().unwrap().0), 100);
}

#[actix::test]
async fn vms_are_found_by_name_id_and_unique_prefix() {
    let house = House::open(vec![], Duration::ZERO).await;
    house.create(1, "web", false).await.unwrap().end().await.unwrap();
    let id = house.view("web").await.record.id;
    for text in [id.to_string(), id.short(), id.to_string()[..4].to_owned()] {
        assert_eq!(house.view(&text).await.record.id, id, "{text}");
    }
    for text in ["we", "webb", "", "abc", "../web"] {
        let found = house.supervisor.call(ctx(2), FindVm(text.to_owned())).await;
        assert!(matches!(found, Err(CallError::Refused(f)) if f.code == Code::NotFound), "{text}");
    }
}

#[actix::test]
async fn starts_are_refused_when_memory_runs_out() {
    let house = House::open(vec![], Duration::ZERO).await;
    let big = |name| {
        let mut create = create(name, false);
        create.spec.memory_mib = (1 << 20) - 512;
        create
    };
    for (n, name) in [(1, "a"), (2, "b")] {
        let mut ticket = house.supervisor.call(ctx(n), big(name)).await.unwrap();
        ticket.end().await.unwrap();
    }
    // At once: only one of them fits, and the other does not slip in before it counts.
    let (first, second) = tokio::join!(
        house.bring_up(3, "a", OpRequest::Start),
        house.bring_up(4, "b", OpRequest::Start)
    );
    assert!(matches!(second, Err(CallError::Refused(f)) if f.message.contains("memory")));
    let ended = first.unwrap().end().await.unwrap();
    assert_eq!(ended.op.outcome, Some(Outcome::Done));
    house.settles("a", VmState::Running).await;
    let restart = OpRequest::Restart { grace: Duration::ZERO };
    let counted = house.bring_up(5, "a", restart.clone()).await.unwrap().end().await.unwrap();
    assert_eq!(counted.op.outcome, Some(Outcome::Done), "it is counted already");
    let refused = house.bring_up(6, "b", restart).await;
    assert!(matches!(refused, Err(CallError::Refused(f)) if f.message.contains("memory")));
    // What was admitted and then failed is not counted any longer.
    house.done(7, "a", OpRequest::Stop { grace: Duration::ZERO }).await;
    house.sim.plan(At::Every("net.ensure_nat".to_owned()), Fault::Refuse);
    let undone = house.bring_up(8, "a", OpRequest::Start).await.unwrap().end().await.unwrap();
    assert!(matches!(undone.op.outcome, Some(Outcome::RolledBack { .. })));
    house.sim.forget_faults();
    let ended = house.bring_up(9, "b", OpRequest::Start).await.unwrap().end().await.unwrap();
    assert_eq!(ended.op.outcome, Some(Outcome::Done));
}

#[actix::test]
async fn a_suspended_vm_gives_its_memory_back_and_is_admitted_again() {
    let house = House::open(vec![], Duration::ZERO).await;
    for (n, name) in [(1, "a"), (2, "b")] {
        let mut create = create(name, false);
        create.spec.memory_mib = (1 << 20) - 512;
        house.supervisor.call(ctx(n), create).await.unwrap().end().await.unwrap();
    }
    house.bring_up(3, "a", OpRequest::Start).await.unwrap().end().await.unwrap();
    let boot = house.settles("a", VmState::Running).await.handles.guest_boot_id;
    assert!(house.bring_up(4, "b", OpRequest::Start).await.is_err());
    house.done(5, "a", OpRequest::Suspend).await;
    let suspended = house.settles("a", VmState::Suspended).await;
    assert!(suspended.handles.process.is_none() && suspended.handles.vmm.is_some());
    house.bring_up(6, "b", OpRequest::Start).await.unwrap().end().await.unwrap();
    for request in [OpRequest::Resume, OpRequest::Start, OpRequest::StartCold] {
        let refused = house.bring_up(7, "a", request).await;
        assert!(matches!(refused, Err(CallError::Refused(f)) if f.message.contains("memory")));
    }
    house.done(8, "b", OpRequest::Kill { signal: 9 }).await;
    house.bring_up(9, "a", OpRequest::Start).await.unwrap().end().await.unwrap();
    let resumed = house.settles("a", VmState::Running).await;
    assert_eq!(resumed.handles.guest_boot_id, boot);
}

#[actix::test]
async fn a_suspend_under_way_may_be_interrupted_and_its_vm_is_watched_again() {
    let house = House::open(vec![], Duration::ZERO).await;
    house.create(1, "web", true).await.unwrap().end().await.unwrap();
    house.sim.plan(At::Every("hypervisor.save".to_owned()), Fault::Hang);
    let mut suspending = house.run(2, "web", OpRequest::Suspend).await.unwrap();
    let stopped = house.done(3, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    assert_eq!(stopped.op.outcome, Some(Outcome::Done));
    let undone = suspending.end().await.unwrap();
    assert!(matches!(undone.op.outcome, Some(Outcome::RolledBack { .. })), "{undone:?}");
    house.settles("web", VmState::Stopped).await;
    house.bring_up(4, "web", OpRequest::Start).await.unwrap().end().await.unwrap();
    house.sim.forget_faults();
    house.sim.plan(At::Nth("disk.keep_saved".to_owned(), 0), Fault::NoSpace);
    let undone = house.done(5, "web", OpRequest::Suspend).await;
    assert!(matches!(undone.op.outcome, Some(Outcome::RolledBack { .. })), "{undone:?}");
    let view = house.settles("web", VmState::Running).await;
    house.sim.crash(view.record.id);
    house.settles("web", VmState::Crashed).await;
}

#[actix::test]
async fn a_retry_is_answered_by_a_host_that_it_fills() {
    let house = House::open(vec![], Duration::from_secs(60)).await;
    let whole = || {
        let mut create = create("web", true);
        create.spec.memory_mib = 1 << 20;
        create
    };
    let first = house.supervisor.call(ctx(1), whole()).await.unwrap();
    let again = house.supervisor.call(ctx(1), whole()).await.unwrap();
    assert_eq!((first.op_id, again.op_id), (op(1), op(1)));
    let other = house.create(2, "other", true).await;
    assert!(matches!(other, Err(CallError::Refused(f)) if f.message.contains("memory")));
    house.done(3, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    let late = house.supervisor.call(ctx(1), whole()).await.unwrap().end().await.unwrap();
    assert!(matches!(late.op.outcome, Some(Outcome::RolledBack { .. })), "{late:?}");
    assert_eq!(late.view.map(|view| view.record.state), Some(VmState::Stopped));
}
