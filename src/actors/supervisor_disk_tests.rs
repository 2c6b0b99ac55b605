//! Disks that fill, and disks that nobody runs on.

use super::*;
use crate::model::ConditionKind;

#[actix::test]
async fn a_vm_whose_disk_fills_is_told_paused_and_goes_on_with_more() {
    let house = House::open(vec![], Duration::ZERO).await;
    let sim = Arc::clone(&house.sim);
    let mut events = crate::actors::events::Tail::from(&house.deps.store, 1);
    let mut heard = |what: &str| {
        let said = |event: crate::model::Event| match event.kind {
            EventKind::Note { text } => text.contains(what),
            _ => false,
        };
        std::iter::from_fn(|| events.ready().unwrap()).any(said)
    };
    let on = DiskChoice::Only(DiskBackend::DmSnapshot);
    let request = CreateVm { disk: on, ..create("web", true) };
    house.supervisor.call(ctx(1), request).await.unwrap().end().await.unwrap();
    let vm = house.settles("web", VmState::Running).await.record.id;
    let fill = |mib| sim.edit(|world| world.fills.extend([(vm, Size::from_mib(mib))]));
    let stands = || sim.world().processes[&vm].paused;
    fill(52); // of 64
    until("the warning", || heard("81 % of the disk of web")).await;
    assert!(!stands());
    fill(60);
    until("the pause", stands).await;
    until("why", || heard("web: paused: 93 %")).await;
    let view = house.view("web").await;
    assert_eq!(view.record.state, VmState::Running);
    let standstill = view.standstill().unwrap();
    assert_eq!(standstill.kind, ConditionKind::Paused);
    assert!(standstill.reason.contains("93 %"), "{standstill:?}");
    assert!(standstill.exit.contains("banger vm set web"), "{standstill:?}");
    // Less than there is, or what takes a stop, is refused; more makes it go on.
    for changes in [
        Changes { disk: Some(Size::from_mib(32)), ..Changes::default() },
        Changes { vcpu: Some(2), ..Changes::default() },
    ] {
        let refused = house.run(2, "web", OpRequest::Set(changes)).await;
        assert!(matches!(refused, Err(CallError::Refused(f)) if f.code == Code::Refused));
    }
    let changes = Changes { disk: Some(Size::from_mib(128)), ..Changes::default() };
    let set = house.done(3, "web", OpRequest::Set(changes)).await;
    assert_eq!(set.op.outcome, Some(Outcome::Done));
    until("it goes on", || !stands()).await;
    until("it is said", || heard("web: paused no more")).await;
    let view = house.view("web").await;
    assert!(view.conditions.is_empty());
    assert_eq!(view.record.spec.disk, Size::from_mib(128));
    assert!(view.handles.process.is_some(), "what runs is still known");
    house.done(4, "web", OpRequest::Stop { grace: LIMIT }).await;
    assert!(sim.world().open_roots.is_empty());
}

#[actix::test]
async fn a_vm_whose_vmm_halts_it_because_the_host_is_full_says_so_and_goes_on_with_room() {
    let house = House::open(vec![], Duration::ZERO).await;
    house.create(1, "web", true).await.unwrap().end().await.unwrap();
    let vm = house.settles("web", VmState::Running).await.record.id;
    house.sim.edit(|world| {
        world.full = true;
        world.halted.insert(vm);
    });
    let seen = house.condition("web", Some(ConditionKind::HostFull)).await.unwrap();
    assert!(seen.reason.contains("could not write its disk"), "{seen:?}");
    assert!(seen.exit.contains("64M free"), "{seen:?}");
    let others = house.view("web").await.conditions.len();
    assert_eq!(others, 1, "that its guest is silent has a cause");
    // A watch that begins anew knows it, too.
    let changes = Changes { restart: Some(RestartPolicy::Always), ..Changes::default() };
    house.done(2, "web", OpRequest::Set(changes)).await;
    assert!(house.view("web").await.standstill().is_some());
    house.sim.edit(|world| world.full = false);
    house.condition("web", None).await;
    assert!(house.sim.world().halted.is_empty());
    house.heard("web: host-full: ").await;
    house.heard("web: host-full no more").await;
}

#[actix::test]
async fn a_root_disk_that_nobody_runs_on_is_closed_by_the_next_daemon() {
    let house = House::open(vec![], Duration::ZERO).await;
    let stray = VmId([9; 16]);
    house.sim.edit(|world| world.open_roots.extend([stray]));
    let House { deps, sim, _dir: dir, .. } = house;
    let house = House::on(deps.store.clone(), sim, dir).await;
    assert!(house.sim.world().open_roots.is_empty());
}
