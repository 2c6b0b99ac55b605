//! Whatever fails on the way to a warm start, the VM that was asked for runs.

use std::sync::{Arc, Mutex};

use super::*;
use crate::model::{OpKind, Outcome, VmId, VmRecord};
use crate::ops::harness::{Case, MemJournal, bare, record, rig_of, survives};
use crate::ops::{Finished, create_and_start, delete_vm, run};
use crate::sim::{At, Fault, SimWorld, World};

fn warm() -> VmRecord {
    let mut vm = record();
    vm.spec.warm = true;
    vm.spec.root.backend = DiskBackend::Overlay;
    vm
}

/// A host on which such a VM was, and left its memory.
async fn stocked() -> World {
    let (cx, host) = rig_of(warm(), bare(), Duration::ZERO);
    for plan in [create_and_start(&warm()), delete_vm()] {
        let end = run(&plan, &cx, &mut MemJournal::default()).await.unwrap();
        assert_eq!(end.outcome, Outcome::Done);
    }
    host.world()
}

survives!(first_of_its_kind, Case::new(OpKind::CreateVm, create_and_start, bare()).of(warm()));
survives!(
    next_of_its_kind,
    Case::new(OpKind::CreateVm, create_and_start, stocked().await).of(warm())
);

struct Ran {
    end: Finished,
    host: Arc<SimWorld>,
    notes: Vec<String>,
}

impl Ran {
    /// Its own guest runs, whatever went wrong.
    fn is_whole(&self, why: &str) {
        assert_eq!(self.end.outcome, Outcome::Done, "{why}: {:?}", self.end.failure);
        let world = self.host.world();
        let process = &world.processes[&record().id];
        assert_eq!((process.guest, process.paused), (Some(record().id), false), "{why}");
        assert!(world.memory.is_empty(), "{why}");
    }
}

async fn create(before: World, faults: &[(&str, Fault)]) -> Ran {
    let (cx, host) = rig_of(warm(), before, Duration::ZERO);
    for (name, fault) in faults {
        // The first time its files are made is every VM's start.
        let nth = usize::from(*name == "disk.ensure_saving");
        host.plan(At::Nth((*name).to_owned(), nth), fault.clone());
    }
    let heard = Arc::new(Mutex::new(vec![]));
    let ear = Arc::clone(&heard);
    let watcher = Arc::new(move |event: EventKind| {
        if let EventKind::Note { text } = event {
            ear.lock().unwrap().push(text);
        }
    });
    let cx = StepCx { watcher, ..cx };
    let plan = create_and_start(&warm());
    let end = run(&plan, &cx, &mut MemJournal::default()).await.unwrap();
    drop(cx);
    let notes = heard.lock().unwrap().clone();
    Ran { end, host, notes }
}

#[tokio::test(start_paused = true)]
async fn the_first_leaves_its_memory_and_the_next_goes_on_from_it() {
    let first = create(bare(), &[]).await;
    first.is_whole("first");
    assert_eq!((first.host.world().snapshots.len(), first.notes.len()), (1, 0));
    assert_eq!(first.host.calls_of("guest.await_ready"), 1);
    let next = create(stocked().await, &[]).await;
    next.is_whole("next");
    let calls = |name| next.host.calls_of(name);
    assert_eq!((calls("guest.await_ready"), calls("hypervisor.save")), (0, 0));
    assert_eq!((calls("guest.adopt"), calls("disk.ensure_vm_disks")), (1, 0));
    assert_eq!((next.host.world().snapshots.len(), next.notes.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn whatever_does_not_fit_boots_and_says_why_once() {
    for name in [
        "disk.ensure_copied_disks",
        "disk.link_saved",
        "hypervisor.boot",
        "disk.remove_saved",
        "hypervisor.unpause",
        "guest.adopt",
    ] {
        for fault in [Fault::Refuse, Fault::HalfDone, Fault::NoSpace, Fault::Hang] {
            if name.starts_with("disk.") && matches!(fault, Fault::Hang) {
                continue; // that hangs the step, as it does any other
            }
            let why = format!("{name}: {fault:?}");
            let ran = create(stocked().await, &[(name, fault)]).await;
            ran.is_whole(&why);
            assert_eq!(ran.notes.len(), 1, "{why}: {:?}", ran.notes);
            assert!(ran.notes[0].starts_with("starts cold: "), "{why}: {:?}", ran.notes);
            assert!(ran.host.world().snapshots.is_empty(), "{why}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_memory_that_cannot_be_kept_costs_its_vm_nothing() {
    for name in [
        "warm.draft",
        "disk.ensure_saving",
        "guest.sync",
        "hypervisor.save",
        "disk.copy_disks",
        "disk.copy_saving",
        "warm.keep",
    ] {
        let ran = create(bare(), &[(name, Fault::NoSpace)]).await;
        ran.is_whole(name);
        assert_eq!(ran.notes.len(), 1, "{name}: {:?}", ran.notes);
        assert!(ran.notes[0].contains("not kept"), "{name}: {:?}", ran.notes);
        assert!(ran.host.world().snapshots.is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_leaves_its_memory_and_the_others_boot() {
    let (cx, host) = rig_of(warm(), bare(), Duration::ZERO);
    cx.observed.set_origin(choose(&cx).await);
    let mut other = warm();
    other.id = VmId([8; 16]);
    let others = StepCx::new(cx.op, other, cx.ports.clone(), Arc::clone(&cx.settings));
    assert!(matches!(choose(&others).await, Origin::Boots));
    drop(cx);
    assert!(matches!(choose(&others).await, Origin::Leaves(..)));
    assert!(host.world().snapshots.is_empty());
}
