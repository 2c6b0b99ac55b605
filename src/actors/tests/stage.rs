//! One simulated host, its state directory, and the daemons that live on it one after the other.
//!
//! ```text
//! life: store opened ─> recovery ─> acts … ─> dies at a write or an effect, or is dropped when idle
//!         └────────── the same files and the same host ──────────┘
//! ```
//!
//! A daemon is whole: its runtime, actors, store. Time is the runtime's own and stands still while
//! anything is to be done, so that the same acts take the same turns each time.

use std::collections::{BTreeSet, VecDeque};

use tokio_util::sync::CancellationToken;

use super::expected::{
    Cmd, Meanwhile, Model, Said, Told, Vm, candidates, changes, predicted, seen_as, spec_of,
    without_broken, world_of,
};
use super::*;
use crate::model::{HostSeen, ResourceKind};
use crate::ports::Clock;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
pub(super) const MEMORY_MIB: u64 = 1024;
/// Of virtual time, which costs nothing.
const QUIET_LIMIT: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The nth call to the host from here.
    Effect(usize),
    /// The nth write to the store from here.
    Write(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub(super) at: Point,
    /// Whether what was under way is still done.
    pub(super) kept: bool,
    /// The host is restarted with the daemon.
    pub(super) reboot: bool,
    /// The next daemon dies in its recovery.
    pub(super) again: Option<(Point, bool)>,
    /// Clients ask for the same once more.
    pub(super) resend: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Asked for at once.
    Ask {
        asks: Vec<(usize, Cmd)>,
        faults: Vec<Planned>,
        crash: Option<Crash>,
    },
    /// A VMM ends by itself, and again when it was started again.
    Ends(usize, usize),
    /// A guest's health checks fail from here on, or succeed.
    Ill(usize, bool),
    /// The daemon is killed when idle.
    Restart,
    Reboot,
    /// The clock is set forward or back, in seconds.
    Clock(i64),
    /// Seconds pass.
    Wait(u64),
}

/// A fault, by the name of a call or of a VM.
#[derive(Clone, Debug)]
pub(super) enum Planned {
    /// The nth call of this name from here.
    Nth(&'static str, usize, Fault),
    Every(&'static str, Fault),
    /// This VM's VMM ends at the nth call of all from here.
    Ends(usize, usize),
    /// The nth write to the store from here fails, and as many after it.
    Unwritten(usize, usize),
}

/// What the last act took when it was not cut short.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) effects: usize,
    pub(super) writes: usize,
}

pub(super) struct Stage {
    sim: Arc<SimWorld>,
    dir: Arc<tempfile::TempDir>,
    base: World,
    pub(super) model: Model,
    asked: Vec<(OpId, usize, Cmd, VmSpec)>,
    /// Their intents were durable.
    accepted: BTreeSet<OpId>,
    folded: BTreeSet<OpId>,
    meanwhile: Meanwhile,
    crash: Option<Crash>,
    birth: Option<(Point, bool)>,
    resend: Vec<u8>,
    next: u8,
    unix_ms: u64,
    pub(super) used: Used,
}

enum Life {
    Over,
    CutShort,
}

pub(super) fn system() -> actix::SystemRunner {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    System::with_tokio_rt(runtime)
}

/// Where files are in memory: nothing here survives the test.
pub(super) fn directory() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.unwrap()
}

/// Plays the acts and then deletes all VMs. The error is where the world is not what it must be.
pub(super) fn play(acts: &[Act]) -> Result<Used, String> {
    let mut stage = Stage::new();
    let mut script: VecDeque<_> = acts.iter().cloned().collect();
    loop {
        let system = system();
        let life = system.block_on(stage.life(&mut script));
        drop(system); // and with it whatever still waits
        if matches!(life?, Life::Over) {
            return Ok(stage.used);
        }
    }
}

impl Stage {
    fn new() -> Self {
        let mut options = SimOptions::new("10.9.0.0/24".parse().unwrap());
        options.boot = Duration::from_millis(50);
        let unix_ms = options.epoch_ms;
        let (sim, dir) = (Arc::new(SimWorld::new(options)), Arc::new(directory()));
        system().block_on(async {
            let store = Store::open_mortal(dir.path(), CancellationToken::new()).unwrap();
            stock(&store, &sim).await;
        });
        Self {
            base: sim.world(),
            sim,
            dir,
            model: Model::new(),
            asked: vec![],
            accepted: BTreeSet::new(),
            folded: BTreeSet::new(),
            meanwhile: Meanwhile::default(),
            crash: None,
            birth: None,
            resend: vec![],
            next: 1,
            unix_ms,
            used: Used::default(),
        }
    }

    async fn life(&mut self, script: &mut VecDeque<Act>) -> Result<Life, String> {
        let power = CancellationToken::new();
        self.set_clock(self.unix_ms);
        self.sim.serve(power.clone());
        let store = Store::open_mortal(self.dir.path(), power.clone())
            .map_err(|error| format!("the store does not open: {error}"))?;
        if let Some((at, kept)) = self.birth.take() {
            self.arm(&store, at, kept);
        }
        let house = House::with_memory(
            MEMORY_MIB,
            store.clone(),
            Arc::clone(&self.sim),
            Arc::clone(&self.dir),
        );
        let house = tokio::select! {
            biased;
            () = power.cancelled() => None,
            house = house => Some(house),
        };
        let life = match house {
            None => Ok(Life::CutShort),
            Some(house) => {
                self.disarm(&store);
                tokio::select! {
                    biased;
                    () = power.cancelled() => Ok(Life::CutShort),
                    life = self.acts(&house, script) => life,
                }
            }
        };
        power.cancel();
        self.sim.forget_faults();
        self.unix_ms = self.sim.unix_ms();
        self.meanwhile.new_daemon = true;
        if let Some(crash) = self.crash.take() {
            self.birth = crash.again;
            if crash.reboot {
                self.reboot();
            }
        }
        life
    }

    /// The clock of a new runtime begins anew; the host's goes on.
    fn set_clock(&self, unix_ms: u64) {
        let ahead = i128::from(unix_ms) - i128::from(self.sim.unix_ms());
        self.sim.set_clock_by(i64::try_from(ahead).unwrap());
    }

    fn reboot(&mut self) {
        self.sim.reboot();
        self.meanwhile.rebooted = true;
    }

    fn arm(&self, store: &Store, at: Point, kept: bool) {
        match at {
            Point::Effect(n) => self.sim.plan(At::Call(self.sim.calls() + n), Fault::Die(kept)),
            Point::Write(n) => store.mortal().dies_at(store.mortal().writes() + n, kept),
        }
    }

    fn disarm(&self, store: &Store) {
        self.sim.forget_faults();
        store.mortal().dies_at(usize::MAX, false);
        store.mortal().refuses(0..0);
    }

    async fn acts(&mut self, house: &House, script: &mut VecDeque<Act>) -> Result<Life, String> {
        self.quiet(house).await?;
        if !self.resend.is_empty() {
            let again = std::mem::take(&mut self.resend);
            let asked = self.asked.clone();
            let again: Vec<_> =
                asked.into_iter().filter(|(id, ..)| again.iter().any(|n| op(*n) == *id)).collect();
            for (id, name, cmd, spec) in again {
                let n = (1..self.next).find(|n| op(*n) == id).unwrap_or_default();
                drop(self.ask(house, n, name, &cmd, &spec).await);
            }
            self.quiet(house).await?;
        }
        self.asked.clear();
        while let Some(act) = script.pop_front() {
            match act {
                Act::Ask { asks, faults, crash } => {
                    self.together(house, asks, faults, crash).await?;
                    if crash.is_some() {
                        return Ok(Life::CutShort);
                    }
                }
                Act::Ends(name, times) => {
                    for _ in 0..times {
                        let Some(vm) = self.model.get(NAMES[name]).filter(|vm| vm.is_on()) else {
                            break;
                        };
                        self.sim.crash(vm.id);
                        self.meanwhile.ended.insert(vm.id);
                        self.quiet(house).await?;
                    }
                }
                Act::Ill(name, ill) => {
                    if let Some(vm) = self.model.get(NAMES[name]).map(|vm| vm.id) {
                        self.meanwhile.ill.insert(vm);
                        self.sim.edit(|world| {
                            world.ill.remove(&vm);
                            world.ill.extend(ill.then_some(vm));
                        });
                    }
                }
                Act::Restart => return Ok(Life::CutShort),
                Act::Reboot => {
                    self.reboot();
                    return Ok(Life::CutShort);
                }
                Act::Clock(seconds) => {
                    self.sim.set_clock_by(seconds * 1000);
                }
                Act::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            }
            self.quiet(house).await?;
            self.asked.clear();
        }
        self.way_out(house).await.map(|()| Life::Over)
    }

    /// Whatever state a VM is in, it can be deleted, and then nothing is left.
    async fn way_out(&mut self, house: &House) -> Result<(), String> {
        let names: Vec<_> =
            (0..NAMES.len()).filter(|n| self.model.contains_key(NAMES[*n])).collect();
        let deletes = names.into_iter().map(|name| (name, Cmd::Delete)).collect();
        let used = self.used;
        self.together(house, deletes, vec![], None).await?;
        self.used = used;
        self.quiet(house).await?;
        if !self.model.is_empty() {
            return Err(format!("not deleted: {:?}", self.model));
        }
        let events = house.deps.store.events(1, usize::MAX).unwrap();
        match events.iter().zip(1..).all(|(event, n)| event.seq == n) {
            true => Ok(()),
            false => Err(format!("the numbers of events have gaps: {events:?}")),
        }
    }

    async fn together(
        &mut self,
        house: &House,
        asks: Vec<(usize, Cmd)>,
        faults: Vec<Planned>,
        crash: Option<Crash>,
    ) -> Result<(), String> {
        let store = house.deps.store.clone();
        let calm = asks.len() == 1 && faults.is_empty() && crash.is_none();
        let foretold = asks
            .first()
            .filter(|_| calm)
            .map(|(name, cmd)| predicted(&self.model, MEMORY_MIB, 0, NAMES[*name], cmd));
        let faulty = !faults.is_empty();
        for fault in faults {
            self.plan(&store, fault);
        }
        self.crash = crash;
        if let Some(Crash { at, kept, .. }) = crash {
            self.arm(&store, at, kept);
        }
        let before = (self.sim.calls(), store.mortal().writes());
        let mut numbered = vec![];
        for (name, cmd) in asks {
            let n = self.next;
            self.next += 1;
            let known = self.model.get(NAMES[name]).map(|vm| vm.spec.clone());
            let spec = match (&cmd, known) {
                (Cmd::Create { .. }, _) | (_, None) => spec_of(name, &cmd),
                (_, Some(spec)) => spec,
            };
            self.asked.push((op(n), name, cmd.clone(), spec.clone()));
            if crash.is_some_and(|crash| crash.resend) {
                self.resend.push(n);
            }
            numbered.push((n, name, cmd, spec));
        }
        let this = &*self;
        let all = numbered.iter().map(|(n, name, cmd, spec)| async move {
            let ticket = this.ask(house, *n, *name, cmd, spec).await;
            (*n, ticket)
        });
        let mut said = vec![];
        let mut accepted = vec![];
        for (n, answer) in futures::future::join_all(all).await {
            match answer {
                Err(error) => said.push(Said::Refused(Failure::from(error).code)),
                Ok(mut ticket) => {
                    accepted.push(op(n));
                    let ended = ticket.end().await;
                    said.push(match ended.and_then(|ended| ended.op.outcome) {
                        Some(Outcome::Done) => Said::Done,
                        Some(Outcome::Unchanged(_)) => {
                            accepted.pop();
                            Said::Unchanged
                        }
                        other => Said::Other(format!("{other:?}")),
                    });
                }
            }
        }
        self.accepted.extend(accepted);
        self.used = Used {
            effects: self.sim.calls() - before.0,
            writes: store.mortal().writes() - before.1,
        };
        if faulty {
            // Some hit what goes on after an operation has ended: watches, the pool of taps.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        self.disarm(&store);
        match foretold {
            Some(foretold) if said != [foretold.clone()] => {
                let asked = &self.asked;
                Err(format!("{asked:?} was answered {said:?}, not {foretold:?}: {:?}", self.model))
            }
            _ => Ok(()),
        }
    }

    fn plan(&mut self, store: &Store, fault: Planned) {
        match fault {
            Planned::Unwritten(nth, more) => {
                let first = store.mortal().writes() + nth;
                store.mortal().refuses(first..first + more + 1);
                self.meanwhile.new_daemon = true; // what it would do is done by the same one
            }
            Planned::Nth(name, nth, fault) => {
                let nth = self.sim.calls_of(name) + nth;
                self.sim.plan(At::Nth(name.to_owned(), nth), fault);
            }
            Planned::Every(name, fault) => self.sim.plan(At::Every(name.to_owned()), fault),
            Planned::Ends(name, call) => {
                if let Some(vm) = self.model.get(NAMES[name]) {
                    self.meanwhile.ended.insert(vm.id);
                    self.sim.plan(At::Call(self.sim.calls() + call), Fault::Ends(vm.id));
                }
            }
        }
    }

    async fn ask(
        &self,
        house: &House,
        n: u8,
        name: usize,
        cmd: &Cmd,
        spec: &VmSpec,
    ) -> Result<Ticket, CallError> {
        let (vm, grace) = (NAMES[name], Duration::from_secs(1));
        match cmd {
            Cmd::Create { dm, start, .. } => {
                let backend = if *dm { DiskBackend::DmSnapshot } else { DiskBackend::Overlay };
                let disk = DiskChoice::Only(backend);
                let create = CreateVm { disk, spec: spec.clone(), ..create(vm, *start) };
                house.supervisor.call(ctx(n), create).await
            }
            Cmd::Start => house.bring_up(n, vm, OpRequest::Start).await,
            Cmd::StartCold => house.bring_up(n, vm, OpRequest::StartCold).await,
            Cmd::Resume => house.bring_up(n, vm, OpRequest::Resume).await,
            Cmd::Restart => house.bring_up(n, vm, OpRequest::Restart { grace }).await,
            Cmd::Stop => house.run(n, vm, OpRequest::Stop { grace }).await,
            Cmd::Kill(signal) => house.run(n, vm, OpRequest::Kill { signal: *signal }).await,
            Cmd::Suspend => house.run(n, vm, OpRequest::Suspend).await,
            Cmd::Delete => house.run(n, vm, OpRequest::Delete).await,
            Cmd::Set { .. } => house.run(n, vm, OpRequest::Set(changes(cmd, spec))).await,
        }
    }

    /// Waits until the world is what the model allows, and stays so.
    async fn quiet(&mut self, house: &House) -> Result<(), String> {
        let mut pause = Duration::from_millis(1);
        let end = tokio::time::Instant::now() + QUIET_LIMIT;
        loop {
            let compared = self.compare(house).await;
            match compared {
                Ok(first) => {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    let again = self.compare(house).await;
                    if again.as_ref() != Ok(&first) && tokio::time::Instant::now() < end {
                        continue; // a policy was at work
                    }
                    let (model, folded) = again?;
                    self.model = model;
                    self.folded.extend(folded);
                    let ill = self.sim.world().ill;
                    self.meanwhile = Meanwhile { ill, ..Meanwhile::default() };
                    return Ok(());
                }
                Err(why) if tokio::time::Instant::now() > end => return Err(why),
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(20));
                }
            }
        }
    }

    /// The model as it is by now, if all that is in the world and the books agrees with it.
    async fn compare(&self, house: &House) -> Result<(Model, Vec<OpId>), String> {
        let (store, world) = (&house.deps.store, self.sim.world());
        let open = store.open_ops().unwrap();
        if !open.is_empty() {
            return Err(format!("operations without an end: {open:#?}"));
        }
        let ops: Vec<_> = store.ops(usize::MAX).unwrap();
        if let Some(lost) = self.accepted.iter().find(|id| !ops.iter().any(|op| op.id == **id)) {
            return Err(format!("operation {lost} was accepted and is not in the books"));
        }
        let new: Vec<_> = ops.into_iter().filter(|op| !self.folded.contains(&op.id)).collect();
        let records = store.vms().unwrap();
        let mut model = Model::new();
        for name in NAMES {
            let told: Vec<Told> = new
                .iter()
                .filter(|op| op.subject == name)
                .map(|op| {
                    let asked = self.asked.iter().find(|(id, ..)| *id == op.id);
                    (asked.map(|(_, _, cmd, spec)| (cmd.clone(), spec.clone())), op.clone())
                })
                .collect();
            let all = candidates(self.model.get(name), &told, &self.meanwhile);
            let record = records.iter().find(|record| record.spec.name.as_str() == name);
            let fits = all.iter().find_map(|candidate| match (candidate, record) {
                (None, None) => Some(None),
                (Some(vm), Some(record)) => seen_as(vm, record, &world).map(Some),
                _ => None,
            });
            match fits {
                Some(vm) => drop(vm.map(|vm| model.insert(name.to_owned(), vm))),
                None => {
                    let record = record.map(|record| (record.id, record.state, &record.spec));
                    return Err(format!(
                        "{name} is {record:?}\nprocesses: {:?}\nallowed: {all:#?}\nwas: {:?}\n\
                         operations: {told:#?}\n{:?}",
                        world.processes,
                        self.model.get(name),
                        self.meanwhile
                    ));
                }
            }
        }
        nothing_is_due(&model)?;
        self.compare_world(house, &model, &world).await?;
        Ok((model, new.into_iter().map(|op| op.id).collect()))
    }

    async fn compare_world(
        &self,
        house: &House,
        model: &Model,
        world: &World,
    ) -> Result<(), String> {
        let taps = house.deps.store.taps().unwrap();
        let must = without_broken(model, world_of(model, &self.base, &taps, world));
        let is = without_broken(model, world.clone());
        if must != is {
            return Err(format!("the world is\n{is:#?}\nand must be\n{must:#?}\nfor {model:#?}"));
        }
        let views = house.supervisor.call(OpCtx::within(op(0), LIMIT), ListVms).await;
        let views = views.map_err(|error| error.to_string())?;
        let mut free = taps.len();
        for vm in model.values() {
            let lease = taps.iter().find(|lease| lease.vm == Some(vm.id));
            let handles = house.deps.store.handles(vm.id).unwrap().unwrap_or_default();
            let view = views.iter().find(|view| view.record.id == vm.id);
            free -= usize::from(lease.is_some());
            let agrees = if vm.is_on() {
                let process = world.processes.get(&vm.id).map(|process| &process.identity);
                lease.is_some()
                    && handles.process.as_ref() == process
                    && handles.tap.as_ref() == lease.map(|lease| &lease.tap)
            } else if vm.is == expected::Is::Error {
                true
            } else {
                lease.is_none() && handles.process.is_none() && handles.tap.is_none()
            };
            let shown = view.is_some_and(|view| {
                let record = house.deps.store.vm(vm.id).unwrap();
                view.busy.is_none()
                    && Some(&view.record) == record.as_ref()
                    && view.handles == handles
            });
            if !agrees || !shown {
                return Err(format!("{vm:?}\nhas {handles:?} {lease:?}, shown as {view:#?}"));
            }
        }
        let books = crate::actors::inventory::books(&house.deps.store).unwrap();
        let disagree = crate::model::compare(&books, &seen_on(world).of(&books));
        if !disagree.is_empty() {
            return Err(format!("ledger and world disagree: {disagree:#?}\nfor {model:#?}"));
        }
        match (free == 2, views.len() == model.len()) {
            (true, true) => Ok(()),
            _ => Err(format!("{free} taps are free of {taps:?}, {} VMs shown", views.len())),
        }
    }
}

/// Only what has no room waits for ever to be started.
fn nothing_is_due(model: &Model) -> Result<(), String> {
    let on = model.values().filter(|vm| vm.is_on());
    let taken: u64 = on.map(|vm| u64::from(vm.spec.memory_mib)).sum();
    let fits = |vm: &&Vm| vm.is_on() || taken + u64::from(vm.spec.memory_mib) <= MEMORY_MIB;
    match model.values().filter(|vm| vm.due).find(fits) {
        None => Ok(()),
        Some(vm) => Err(format!("its policy is about to start {vm:?}")),
    }
}

/// The world as who looks for the ledger finds it.
fn seen_on(world: &World) -> HostSeen {
    let mut seen = HostSeen { things: world.things(), ..HostSeen::default() };
    for tap in &world.taps {
        seen.add(ResourceKind::Tap, tap.0.clone(), None);
    }
    seen
}
