//! The host is restarted: nothing of its last boot is believed, and nothing of it is left.

use super::*;

/// Ends the house with its host, whose next boot a new daemon finds.
pub(super) async fn reboot(house: House) -> House {
    let (store, sim, dir) =
        (house.deps.store.clone(), Arc::clone(&house.sim), Arc::clone(&house._dir));
    sim.reboot();
    sim.forget_faults();
    House::on(store, sim, dir).await
}

impl House {
    /// Nothing of any VM is on the host but disks and what was saved of its memory.
    pub(super) async fn nothing_runs(&self, why: &str) {
        let sim = Arc::clone(&self.sim);
        until(&format!("{why}: nothing but disks and memory"), || {
            let world = sim.world();
            world.processes.is_empty()
                && world.run_dirs.is_empty()
                && world.configs.is_empty()
                && world.nat.is_empty()
                && world.names.is_empty()
                && world.open_roots.is_empty()
        })
        .await;
        let store = self.deps.store.clone();
        until(&format!("{why}: no lease"), || {
            store.taps().unwrap().iter().all(|lease: &crate::store::TapLease| lease.vm.is_none())
        })
        .await;
    }
}

#[actix::test]
async fn what_ran_is_stopped_by_the_restart_and_what_was_suspended_stays_so() {
    let house = House::open(vec![], Duration::ZERO).await;
    for (n, name) in [(1, "ran"), (2, "slept"), (3, "off"), (4, "died")] {
        house.create(n, name, name != "off").await.unwrap().end().await.unwrap();
    }
    house.done(5, "slept", OpRequest::Suspend).await;
    let boot = house.view("ran").await.handles.guest_boot_id;
    let died = house.view("died").await.record.id;
    house.sim.crash(died);
    house.settles("died", VmState::Crashed).await;
    let house = reboot(house).await;
    let ran = house.settles("ran", VmState::Stopped).await;
    assert_eq!(ran.record.last_exit.unwrap().how, "the host was restarted");
    assert_eq!(ran.record.last_failure, None, "nothing failed");
    assert_eq!(ran.handles, VmHandles::default());
    let slept = house.settles("slept", VmState::Suspended).await;
    assert!(slept.handles.vmm.is_some() && slept.handles.process.is_none());
    assert_eq!(house.state("off").await, VmState::Created);
    let died = house.settles("died", VmState::Crashed).await;
    assert_ne!(died.record.last_exit.unwrap().how, "the host was restarted");
    house.nothing_runs("after the restart").await;
    for (n, name) in [(6, "ran"), (7, "slept"), (8, "off"), (9, "died")] {
        house.bring_up(n, name, OpRequest::Start).await.unwrap().end().await.unwrap();
        house.settles(name, VmState::Running).await;
    }
    assert_ne!(house.view("ran").await.handles.guest_boot_id, boot);
    // A daemon that is merely restarted finds all of them.
    let (store, sim, dir) =
        (house.deps.store.clone(), Arc::clone(&house.sim), Arc::clone(&house._dir));
    let pid = house.view("ran").await.handles.process;
    let next = House::on(store, sim, dir).await;
    assert_eq!(next.settles("ran", VmState::Running).await.handles.process, pid);
}

/// What an operation begins with, and how it is asked for.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    Off,
    On,
    Suspended,
}

/// A VM as it is before the operation, the operation's beginning and the calls until then. None: it was cut short before it was accepted, and so never began.
async fn begun(
    before: Before,
    request: OpRequest,
    hang: Option<(&'static str, usize)>,
) -> Option<(House, Ticket, Calls)> {
    let house = House::open(vec![], Duration::ZERO).await;
    if !matches!(before, Before::Nothing) {
        let on = !matches!(before, Before::Off);
        house.create(1, "web", on).await.unwrap().end().await.unwrap();
        until_idle(&house).await;
    }
    if matches!(before, Before::Suspended) {
        house.done(2, "web", OpRequest::Suspend).await;
        until_idle(&house).await;
    }
    let earlier = house.sim.tally();
    if let Some((name, nth)) = hang {
        let nth = house.sim.calls_of(name) + nth;
        house.sim.plan(At::Nth(name.to_owned(), nth), Fault::Hang);
    }
    let asking = async {
        match before {
            Before::Nothing => house.create(3, "web", true).await,
            _ => house.run(3, "web", request).await,
        }
    };
    let ticket = tokio::select! {
        biased;
        ticket = asking => Some(ticket.unwrap()),
        () = hangs(&house.sim) => None,
    };
    ticket.map(|ticket| (house, ticket, earlier))
}

type Calls = std::collections::HashMap<&'static str, usize>;

async fn hangs(sim: &SimWorld) {
    until("a call hangs", || sim.hanging() > 0).await;
}

/// Of whoever watches the VM, of a creation before it has begun, and of the tap pool's own making.
const BACKGROUND: [&str; 5] =
    ["process.exited", "disk.cap_logs", "net.ensure_tap", "net.remove_tap", "guest.make_keys"];

/// The operation is cut short by the host's restart in each of its calls.
async fn cut_short_everywhere(before: Before, request: OpRequest) {
    let (house, mut ticket, earlier) = begun(before, request.clone(), None).await.unwrap();
    ticket.end().await.unwrap();
    let mut cut = 0;
    for (name, all) in house.sim.tally() {
        let calls = all - earlier.get(name).unwrap_or(&0);
        for nth in 0..if BACKGROUND.contains(&name) { 0 } else { calls } {
            let begun = begun(before, request.clone(), Some((name, nth))).await;
            let Some((house, mut ticket, _)) = begun else { continue };
            tokio::select! {
                _ = ticket.end() => continue, // that call was another's
                () = hangs(&house.sim) => cut += 1,
            }
            let why = format!("{request:?} cut short in {name}, time {nth}");
            recovered(before, &request, reboot(house).await, &why).await;
        }
    }
    assert!(cut > 3, "{request:?} was cut short {cut} times");
}

async fn recovered(before: Before, request: &OpRequest, house: House, why: &str) {
    let op = house.deps.store.op(op(3)).unwrap().unwrap();
    assert!(op.outcome.is_some(), "{why}: {op:?}");
    house.nothing_runs(why).await;
    let Ok(found) = house.supervisor.call(ctx(0), FindVm("web".to_owned())).await else {
        assert!(matches!(before, Before::Nothing) || *request == OpRequest::Delete, "{why}");
        assert!(house.sim.world().disks.is_empty(), "{why}");
        return;
    };
    let state = found.view.record.state;
    let off = [VmState::Created, VmState::Stopped, VmState::Suspended];
    assert!(off.contains(&state), "{why}: {state}");
    let kept = house.sim.world().memory.len();
    assert_eq!(kept, usize::from(state == VmState::Suspended), "{why}: {state}");
    house.bring_up(4, "web", OpRequest::Start).await.unwrap().end().await.unwrap();
    house.settles("web", VmState::Running).await;
}

async fn until_idle(house: &House) {
    let waited = async {
        while house.view("web").await.busy.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waited).await.is_ok());
}

macro_rules! cut_short {
    ($($name:ident: $before:ident, $request:expr;)*) => {
        $(#[actix::test]
        async fn $name() {
            cut_short_everywhere(Before::$before, $request).await;
        })*
    };
}

cut_short! {
    a_creation_cut_short: Nothing, OpRequest::Create { start: true };
    a_start_cut_short: Off, OpRequest::Start;
    a_stop_cut_short: On, OpRequest::Stop { grace: LIMIT };
    a_kill_cut_short: On, OpRequest::Kill { signal: 9 };
    a_restart_cut_short: On, OpRequest::Restart { grace: LIMIT };
    a_delete_cut_short: On, OpRequest::Delete;
    a_suspend_cut_short: On, OpRequest::Suspend;
    a_resume_cut_short: Suspended, OpRequest::Resume;
    a_cold_start_cut_short: Suspended, OpRequest::StartCold;
}
