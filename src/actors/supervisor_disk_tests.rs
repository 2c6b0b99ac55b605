//! Disks that fill, and disks that nobody runs on.

use super::*;

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
    until("why", || heard("web is paused: 93 %")).await;
    let view = house.view("web").await;
    assert_eq!(view.record.state, VmState::Running);
    assert!(view.paused.is_some_and(|why| why.contains("93 %")));
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
    until("it is said", || heard("web goes on")).await;
    let view = house.view("web").await;
    assert_eq!((view.paused, view.record.spec.disk), (None, Size::from_mib(128)));
    assert!(view.handles.process.is_some(), "what runs is still known");
    house.done(4, "web", OpRequest::Stop { grace: LIMIT }).await;
    assert!(sim.world().open_roots.is_empty());
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
