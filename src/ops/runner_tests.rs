//! What the runner promises beyond the suite: order of writes, limits, stories.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::harness::{MemJournal, OP, bare, created, record, rig, running};
use super::{Settings, StepCx, StoreJournal, create_and_start, run, start_vm, stop_vm};
use crate::model::{Code, EventKind, OpId, Outcome, StepEvent, VmHandles, VmId};
use crate::sim::{At, Fault};
use crate::store::Store;

fn every(name: &str) -> At {
    At::Every(name.to_owned())
}

/// What the step said when it was done.
fn output<'a>(journal: &'a MemJournal, step: &str) -> Option<&'a str> {
    journal.entries.iter().find_map(|entry| match &entry.event {
        StepEvent::Succeeded(output) if entry.step == step => Some(output.as_str()),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_step_costs_one_write_and_one_that_only_looks_none_unless_it_waits() {
    let (cx, _host) = rig(created().await, Duration::ZERO);
    let mut journal = MemJournal::default();
    let plan = start_vm(&record());
    run(&plan, &cx, &mut journal).await.unwrap();
    let with_effect = plan[0].steps.iter().filter(|step| step.has_effect()).count();
    assert!(with_effect < plan[0].steps.len());
    assert_eq!(journal.writes, with_effect + 1);
    let succeeded = |e: &StepEvent| matches!(e, StepEvent::Succeeded(_));
    for pair in journal.entries.chunks(2) {
        assert_eq!(pair[0].event, StepEvent::Started);
        assert!(succeeded(&pair[1].event) && pair[0].step == pair[1].step);
    }
    let (cx, _host) = rig(created().await, Duration::from_secs(1));
    let mut journal = MemJournal::default();
    run(&plan, &cx, &mut journal).await.unwrap();
    assert_eq!(journal.writes, with_effect + 2, "the wait for the guest is known as it goes on");
}

#[tokio::test(start_paused = true)]
async fn handles_are_found_on_the_way() {
    let (cx, host) = rig(created().await, Duration::ZERO);
    let mut journal = MemJournal::default();
    run(&start_vm(&record()), &cx, &mut journal).await.unwrap();
    let handles = cx.observed.handles();
    let process = &host.world().processes[&record().id];
    assert_eq!(handles.process.as_ref(), Some(&process.identity));
    assert_eq!(handles.tap.as_ref(), host.world().leases.get(&record().id));
    assert_eq!(handles.guest_boot_id.as_deref(), output(&journal, "await-ready"));
    assert_eq!(handles.vmm.as_deref(), Some("sim 1 (none: the host is simulated)"));
}

#[tokio::test(start_paused = true)]
async fn handles_of_what_was_undone_are_forgotten() {
    let (cx, host) = rig(created().await, Duration::ZERO);
    host.plan(every("names.publish"), Fault::Refuse);
    run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap();
    assert_eq!(cx.observed.handles(), VmHandles::default());
    // A process that could not be ended is still there, and known.
    let (cx, host) = rig(created().await, Duration::ZERO);
    host.plan(every("names.publish"), Fault::Refuse);
    host.plan(every("process.ensure_gone"), Fault::Refuse);
    run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap();
    assert!(cx.observed.handles().process.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_comes_up_tells_its_story() {
    let (cx, host) = rig(created().await, Duration::ZERO);
    host.plan(every("guest.await_ready"), Fault::Hang);
    let end = run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap();
    let failure = end.failure.unwrap();
    assert_eq!(failure.code, Code::GuestUnreachable);
    assert_eq!(failure.message, "boot guest web: not ready within 120 s");
    assert_eq!(failure.detail, ["[sim] booting", "[sim] agent started"]);
    assert_eq!(failure.hints, ["the whole console: banger vm logs web"]);
    assert_eq!(failure.op_id, Some(OP));
}

#[tokio::test(start_paused = true)]
async fn a_vmm_that_dies_ends_the_wait_at_once() {
    let (cx, host) = rig(created().await, Duration::from_secs(60));
    let began = Instant::now();
    let starting = tokio::spawn({
        let cx = cx.clone();
        async move { run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap() }
    });
    while host.calls_of("process.exited") < 2 {
        tokio::task::yield_now().await; // await-running does not get to watch: it is done at once
        if host.calls_of("process.exited") == 1 && host.calls_of("guest.await_ready") == 1 {
            break;
        }
    }
    assert!(host.crash(record().id));
    let failure = starting.await.unwrap().failure.unwrap();
    assert_eq!(failure.code, Code::GuestDied);
    assert_eq!(failure.message, "boot guest web: the VMM ended: killed by SIGKILL");
    assert_eq!(failure.detail.len(), 2);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_wait_for_the_guest() {
    let cancel = CancellationToken::new();
    let (cx, host) = rig(created().await, Duration::ZERO);
    host.plan(every("guest.await_ready"), Fault::Hang);
    let cx = StepCx { cancel: cancel.clone(), ..cx };
    let began = Instant::now();
    let starting = tokio::spawn(async move {
        run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap()
    });
    while host.calls_of("guest.await_ready") == 0 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let end = starting.await.unwrap();
    let cause = "cancelled".to_owned();
    assert_eq!(end.outcome, Outcome::RolledBack { step: "await-ready".to_owned(), cause });
    assert_eq!(end.failure.unwrap().code, Code::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(host.world(), created().await);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_is_given_up() {
    let (cx, host) = rig(created().await, Duration::ZERO);
    host.plan(every("disk.ensure_run_dir"), Fault::Hang);
    let end = run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap();
    assert_eq!(end.failure.unwrap().code, Code::Deadline);
    assert_eq!(host.world(), created().await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_whether_it_was_graceful() {
    let stop = async |faults: &[(&str, Fault)]| {
        let (cx, host) = rig(running().await, Duration::ZERO);
        let heard = Arc::new(Mutex::new(vec![]));
        let ear = Arc::clone(&heard);
        let watcher = Arc::new(move |event: EventKind| {
            if let EventKind::Note { text } = event {
                ear.lock().unwrap().push(text);
            }
        });
        let cx = StepCx { watcher, ..cx };
        faults.iter().for_each(|(name, fault)| host.plan(every(name), fault.clone()));
        let began = Instant::now();
        let mut journal = MemJournal::default();
        let end = run(&stop_vm(None), &cx, &mut journal).await.unwrap();
        assert_eq!(end.outcome, Outcome::Done);
        assert_eq!(host.world(), created().await);
        let limit = cx.settings.grace + Duration::from_secs(5);
        assert!(began.elapsed() <= limit, "{:?}", began.elapsed());
        let how = output(&journal, "shutdown-guest").unwrap().to_owned();
        let told = heard.lock().unwrap().clone();
        assert_eq!(told, if how == "graceful" { vec![] } else { vec![how.clone()] });
        how
    };
    assert_eq!(stop(&[]).await, "graceful");
    let pressed = stop(&[("guest.shutdown", Fault::Refuse)]).await;
    let expected = "ended when its power button was pressed: simulate guest.shutdown: refused";
    assert_eq!(pressed, expected);
    let wedged = [
        ("guest.shutdown", Fault::Delay(Duration::from_secs(3600))),
        ("hypervisor.power_button", Fault::Delay(Duration::from_secs(3600))),
    ];
    let why = "ended by force: the agent did not answer; the VMM did not answer";
    assert_eq!(stop(&wedged).await, why);
    let blind = stop(&[("process.find", Fault::Refuse)]).await;
    assert!(blind.starts_with("ended by force: simulate process.find"), "{blind}");
}

#[tokio::test(start_paused = true)]
async fn watchers_hear_of_every_step() {
    let (cx, host) = rig(created().await, Duration::ZERO);
    host.plan(every("guest.await_ready"), Fault::Refuse);
    let heard = Arc::new(Mutex::new(vec![]));
    let ear = Arc::clone(&heard);
    let watcher = Arc::new(move |event: EventKind| ear.lock().unwrap().push(event));
    let cx = StepCx { watcher, ..cx };
    run(&start_vm(&record()), &cx, &mut MemJournal::default()).await.unwrap();
    let heard = heard.lock().unwrap();
    let count = |wanted: fn(&EventKind) -> bool| heard.iter().filter(|e| wanted(e)).count();
    assert_eq!(count(|e| matches!(e, EventKind::StepStarted { .. })), 11);
    assert_eq!(count(|e| matches!(e, EventKind::StepDone { .. })), 10);
    assert_eq!(count(|e| matches!(e, EventKind::StepFailed { .. })), 1);
    assert_eq!(count(|e| matches!(e, EventKind::StepUndone { .. })), 11);
}

#[tokio::test]
async fn the_store_keeps_what_the_runner_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (cx, _host) = rig(running().await, Duration::ZERO);
    let mut journal = StoreJournal::new(store.clone(), OP);
    run(&stop_vm(None), &cx, &mut journal).await.unwrap();
    let (_, history) = StoreJournal::resume(store, OP).unwrap();
    assert_eq!(history.len(), 2 * stop_vm(None)[0].steps.len());
    assert_eq!(history[0].step, "withdraw-name");
}

/// What a daemon on the simulated host does for a hundred creates at once, without its actors.
#[tokio::test]
async fn a_hundred_creates_at_once_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (cx, host) = rig(bare(), Duration::ZERO);
    let began = std::time::Instant::now();
    let creates = (0..100_u8).map(|n| {
        let (store, cx) = (store.clone(), cx.clone());
        async move {
            let op = OpId([n; 16]);
            let mut vm = record();
            vm.id = VmId([n; 16]);
            vm.spec.name = format!("vm-{n}").parse().unwrap();
            vm.address = [172, 16, 0, n + 2].into();
            let plan = create_and_start(&vm);
            let cx = StepCx::new(op, vm, cx.ports, cx.settings);
            run(&plan, &cx, &mut StoreJournal::new(store, op)).await.unwrap().outcome
        }
    });
    let outcomes = futures::future::join_all(creates).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    assert_eq!(host.world().processes.len(), 100);
    assert_eq!(host.world().leases.len(), 100);
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}"); // a bound for the slowest disk
}

#[test]
fn limits_leave_room_for_the_better_story() {
    let settings = Settings::new(super::harness::subnet(), vec![]);
    for step in &start_vm(&record())[0].steps {
        let own = if step.name() == "await-ready" { settings.boot_limit } else { Duration::ZERO };
        assert!(step.limit(&settings) > own, "{}", step.name());
    }
}
