//! The ledger against a simulated host: what leaks is found and collected, and nothing else; what is in
//! error is left with its disks.

use super::*;
use crate::actors::inventory::Inventory;
use crate::actors::janitor::{CollectGarbage, JanitorActor, JanitorDeps};
use crate::actors::supervisor::Revive;
use crate::actors::{ImagesActor, ImagesDeps};
use crate::model::{Amiss, Cure, LedgerChange, LedgerRow, Mismatch, ResourceKind as K, TapName};
use crate::ports::{DiskPlan, WarmHost};
use crate::sim::SimProcess;

const GONE: VmId = VmId([0xee; 16]);

struct Books {
    inventory: Inventory,
    janitor: Handle<JanitorActor>,
}

impl Books {
    fn of(house: &House) -> Self {
        let ports = house.deps.ports.clone();
        let warm: Arc<dyn WarmHost> = Arc::<SimWorld>::clone(&house.sim);
        let (store, events) = (house.deps.store.clone(), house.deps.events.clone());
        let tasks = TaskTracker::new();
        let images = ImagesActor::launch(ImagesDeps {
            store: store.clone(),
            images: Arc::clone(&ports.images),
            warm: Arc::clone(&warm),
            clock: Arc::clone(&ports.clock),
            events: events.clone(),
            mint: house.deps.mint.clone(),
            tasks: tasks.clone(),
            cancel: CancellationToken::new(),
        });
        let inventory = Inventory {
            store,
            net: Arc::clone(&ports.net),
            process: Arc::clone(&ports.process),
            disk: Arc::clone(&ports.disk),
            images: Arc::clone(&ports.images),
            warm,
        };
        let janitor = JanitorActor::launch(JanitorDeps {
            inventory: inventory.clone(),
            ports,
            taps: house.taps.clone(),
            images,
            supervisor: house.supervisor.clone(),
            events,
            mint: house.deps.mint.clone(),
            tasks,
        });
        Self { inventory, janitor }
    }

    async fn found(&self) -> Vec<Mismatch> {
        self.inventory.compare(op(0)).await.unwrap().mismatches
    }

    async fn collect(&self, n: u8) -> Ended {
        let collect = CollectGarbage { request_hash: 1 };
        self.janitor.call(ctx(n), collect).await.unwrap().end().await.unwrap()
    }
}

/// One thing of each kind that nobody holds, and what the list of them must be.
fn leak(world: &mut World, of: &VmRecord) -> Vec<K> {
    let process = world.processes.values().next().unwrap().identity.clone();
    let identity = crate::model::ProcessIdentity { pid: 9999, ..process };
    world.processes.insert(GONE, SimProcess { identity, paused: false, boot: 9, guest: None });
    world.jails.insert(GONE);
    world.open_roots.insert(GONE);
    world.loops.insert("/sim/vms/x/work.ext4".into());
    world.taps.insert(TapName::new("tap", 99));
    world.nat.insert(GONE, [10, 9, 0, 200].into());
    world.run_dirs.insert(GONE);
    world.disks.insert(GONE, DiskPlan::for_vm(GONE, &of.spec));
    world.configs.insert(GONE);
    world.leftovers.insert("/sim/tmp/1-0".into());
    // With its process there is its cgroup; its configuration drive goes with its directory.
    vec![
        K::Process,
        K::Cgroup,
        K::Jail,
        K::Device,
        K::Loop,
        K::Tap,
        K::Nat,
        K::RunDir,
        K::VmDir,
        K::Leftover,
    ]
}

fn kinds(found: &[Mismatch]) -> Vec<K> {
    let mut kinds: Vec<_> = found.iter().map(|one| one.thing.kind).collect();
    kinds.sort_unstable();
    kinds
}

async fn housed() -> (House, Books) {
    let house = House::open(vec![], Duration::ZERO).await;
    house.create(1, "web", true).await.unwrap().end().await.unwrap();
    house.create(2, "db", false).await.unwrap().end().await.unwrap();
    house.settles("web", VmState::Running).await;
    let sim = Arc::clone(&house.sim);
    until("warm taps", || sim.world().taps.len() >= 3).await;
    let books = Books::of(&house);
    (house, books)
}

#[actix::test]
async fn what_leaks_of_each_kind_is_collected_and_nothing_else() {
    let (house, books) = housed().await;
    assert_eq!(books.found().await, []);
    let (web, before) = (house.view("web").await, house.sim.world());
    let mut leaked = vec![];
    house.sim.edit(|world| leaked = leak(world, &web.record));
    leaked.sort_unstable();
    let planted = house.sim.world();
    let found = books.found().await;
    assert_eq!(kinds(&found), leaked, "{found:#?}");
    assert!(found.iter().all(|one| one.amiss == Amiss::Orphan && one.cure == Cure::Remove));
    assert_eq!(house.sim.world(), planted, "looking changes nothing");
    let ended = books.collect(3).await;
    assert_eq!(ended.op.outcome, Some(Outcome::Done), "{ended:?}");
    assert_eq!(house.sim.world(), before);
    assert_eq!(books.found().await, []);
    let steps = house.deps.store.history(op(3)).unwrap();
    let done = |step: &str| steps.iter().any(|entry| entry.step.starts_with(step));
    assert!(done("compare") && done("remove tap tap99") && done("remove leftover"), "{steps:?}");
    let same = house.view("web").await;
    assert_eq!((same.handles, same.generation), (web.handles, web.generation));
    // The same again finds nothing, and the same id begins nothing.
    assert!(matches!(books.collect(4).await.op.outcome, Some(Outcome::Unchanged(_))));
    assert_eq!(books.collect(3).await.op.outcome, Some(Outcome::Done));
}

#[actix::test]
async fn of_a_known_vm_its_actor_takes_what_it_does_not_hold() {
    let (house, books) = housed().await;
    let (db, before) = (house.view("db").await.record, house.sim.world());
    house.sim.edit(|world| {
        world.nat.insert(db.id, db.address);
        world.run_dirs.insert(db.id);
        world.cgroups.insert(db.id);
    });
    let row =
        LedgerRow { vm: db.id, kind: K::Config, name: db.id.to_string(), op: None, unix_ms: 1 };
    let store = &house.deps.store;
    store.change_ledger(LedgerChange::Made(row.clone())).await.unwrap();
    store.change_ledger(LedgerChange::Made(LedgerRow { vm: GONE, ..row })).await.unwrap();
    let found = books.found().await;
    assert_eq!(kinds(&found), [K::Nat, K::Cgroup, K::RunDir, K::Config, K::Config], "{found:#?}");
    assert_eq!(books.collect(3).await.op.outcome, Some(Outcome::Done));
    assert_eq!((house.sim.world(), books.found().await), (before, vec![]));
    let kinds: Vec<_> = store.ops(9).unwrap().iter().map(|op| op.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == OpKind::CollectVm).count(), 4);
    assert_eq!(house.state("db").await, VmState::Created, "its state is what it was");
}

#[actix::test]
async fn disks_without_a_row_get_one_and_are_never_removed() {
    let (house, books) = housed().await;
    let db = house.view("db").await.record;
    let gone = LedgerChange::Gone(db.id, K::VmDir);
    house.deps.store.change_ledger(gone).await.unwrap();
    let found = books.found().await;
    assert_eq!((found.len(), &found[0].cure), (1, &Cure::Record));
    assert_eq!(books.collect(3).await.op.outcome, Some(Outcome::Done));
    assert!(house.sim.world().disks.contains_key(&db.id));
    assert_eq!(books.found().await, []);
}

#[actix::test]
async fn what_a_running_vm_holds_is_not_to_be_had() {
    let (house, books) = housed().await;
    let web = house.view("web").await.record;
    for kind in K::OF_VMS {
        let refused = house.run(10, "web", OpRequest::Collect(kind)).await.map(drop);
        // Its rule has no row where its owner wants none.
        let without = kind == K::Nat && !web.spec.nat;
        assert_eq!(refused.is_ok(), without, "{kind}");
    }
    house.settles("web", VmState::Running).await;
    // What is lost to it is told, and nothing is struck.
    house.sim.edit(|world| {
        world.nat.remove(&web.id);
        world.run_dirs.remove(&web.id);
    });
    let found = books.found().await;
    assert_eq!(kinds(&found), [K::Nat, K::RunDir]);
    assert!(found.iter().all(|one| one.amiss == Amiss::Lost && !one.cure.acts()));
    assert!(matches!(books.collect(3).await.op.outcome, Some(Outcome::Unchanged(_))));
}

#[actix::test]
async fn what_cannot_be_removed_stops_nothing_else_and_is_found_again() {
    let (house, books) = housed().await;
    let (web, before) = (house.view("web").await.record, house.sim.world());
    house.sim.edit(|world| drop(leak(world, &web)));
    house.sim.plan(At::Every("net.remove_tap".to_owned()), Fault::Refuse);
    let ended = books.collect(3).await;
    assert!(matches!(ended.op.outcome, Some(Outcome::Stuck { .. })), "{ended:?}");
    house.sim.forget_faults();
    assert_eq!(kinds(&books.found().await), [K::Tap]);
    assert_eq!(books.collect(4).await.op.outcome, Some(Outcome::Done));
    assert_eq!(house.sim.world(), before);
}

#[actix::test]
async fn a_vm_in_error_is_recovered_with_its_disks() {
    let (house, books) = housed().await;
    let db = house.view("db").await.record;
    for (at, fault) in [("guest.await_ready", 1), ("process.ensure_gone", usize::MAX)] {
        let at = if fault == 1 {
            At::Nth(at.to_owned(), house.sim.calls_of(at))
        } else {
            At::Every(at.to_owned())
        };
        house.sim.plan(at, Fault::Refuse);
    }
    house.bring_up(3, "db", OpRequest::Start).await.unwrap().end().await.unwrap();
    assert_eq!(house.settles("db", VmState::Error).await.record.state, VmState::Error);
    let held = |house: &House| -> Vec<K> {
        house.deps.store.ledger_of(db.id).unwrap().iter().map(|row| row.kind).collect()
    };
    assert!(held(&house).contains(&K::Process), "its rows name what may be left");
    assert_eq!(books.found().await, [], "and gc leaves it to its recovery");
    house.sim.forget_faults();
    let ended = house.done(4, "db", OpRequest::Recover).await;
    assert_eq!(ended.op.outcome, Some(Outcome::Done), "{ended:?}");
    assert_eq!(house.state("db").await, VmState::Stopped);
    assert_eq!(held(&house), [K::VmDir]);
    assert!(house.sim.world().disks.contains_key(&db.id));
    assert_eq!(books.found().await, []);
    assert!(matches!(
        house.done(5, "db", OpRequest::Recover).await.op.outcome,
        Some(Outcome::Unchanged(_))
    ));
    let refused = house.run(6, "web", OpRequest::Recover).await.unwrap_err();
    assert_eq!(Failure::from(refused).code, Code::Refused, "what runs is not cleaned up");
    house.bring_up(7, "db", OpRequest::Start).await.unwrap().end().await.unwrap();
    assert_eq!(house.state("db").await, VmState::Running);
}

#[actix::test]
async fn an_actor_in_quarantine_is_built_anew_when_asked() {
    let (house, _) = housed().await;
    tokio::time::pause();
    let id = house.view("web").await.record.id;
    let find = || house.supervisor.call(ctx(9), FindVm("web".to_owned()));
    loop {
        match find().await.unwrap().handle {
            Ok(handle) => drop(handle.call(ctx(9), PanicNow).await),
            Err(CallError::Refused(failure)) => {
                assert!(failure.hints[0].contains("vm recover"), "{failure:?}");
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    house.supervisor.call(ctx(9), Revive(id)).await.unwrap();
    tokio::time::resume();
    assert!(find().await.unwrap().handle.is_ok());
    house.done(3, "web", OpRequest::Stop { grace: Duration::ZERO }).await;
    assert_eq!(house.state("web").await, VmState::Stopped);
}
