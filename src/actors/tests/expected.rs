//! What there must be: a model of VMs that knows no more than what users are told, and the world that
//! follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::stage::NAMES;
use super::wishes::{after, has_given_up, spread};
use super::*;
use crate::model::{HealthChange, OpRecord, ProcessIdentity, Verb, VmRecord, Wanted, admits};
use crate::ports::DiskPlan;
use crate::sim::{SimMemory, SimProcess};
use crate::store::TapLease;

/// What is asked of a VM.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cmd {
    Create {
        memory_mib: u32,
        dm: bool,
        warm: bool,
        start: bool,
        restart: RestartPolicy,
        /// Whether its health is checked.
        checked: bool,
    },
    Start,
    StartCold,
    Resume,
    Stop,
    Kill(i32),
    Restart,
    Suspend,
    Delete,
    /// Disks so many MiB larger, and other memory; another policy, or checks of its health.
    Set {
        more: u32,
        memory_mib: Option<u32>,
        restart: Option<RestartPolicy>,
        checked: Option<bool>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Created,
    Stopped,
    Crashed,
    On(Run),
    /// The guest's boot.
    Suspended(Option<u32>),
    Error,
    /// Its policy has given up: an error, and nothing of it is left.
    GaveUp,
}

/// What must not change while nobody touches it. None: not seen yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    process: Option<ProcessIdentity>,
    boot: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Vm {
    pub(super) id: VmId,
    pub(super) spec: VmSpec,
    pub(super) is: Is,
    /// They were to grow and could not: the record says more.
    pub(super) disks_lag: bool,
    /// Its owner's word.
    pub(super) wanted: Wanted,
    /// Its policy is about to start it.
    pub(super) due: bool,
}

/// What happened to the host and the daemon since the model was last compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Meanwhile {
    /// VMMs that may have ended by themselves.
    pub(super) ended: BTreeSet<VmId>,
    pub(super) new_daemon: bool,
    pub(super) rebooted: bool,
    /// Whose health checks failed at times.
    pub(super) ill: BTreeSet<VmId>,
}

pub(super) type Model = BTreeMap<String, Vm>;

/// What a daemon answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Done,
    Unchanged,
    Refused(Code),
    Other(String),
}

impl Vm {
    pub(super) fn to(&self, is: Is) -> Option<Self> {
        Some(Self { is, ..self.clone() })
    }

    fn state(&self) -> VmState {
        match self.is {
            Is::Created => VmState::Created,
            Is::Stopped => VmState::Stopped,
            Is::Crashed => VmState::Crashed,
            Is::On(_) => VmState::Running,
            Is::Suspended(_) => VmState::Suspended,
            Is::Error | Is::GaveUp => VmState::Error,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self.is, Is::On(_))
    }
}

/// Of the VM that a command is about.
pub(super) fn spec_of(name: usize, cmd: &Cmd) -> VmSpec {
    let mut spec = create(NAMES[name], false).spec;
    "debian".clone_into(&mut spec.kernel); // as the reservation names it
    if let Cmd::Create { memory_mib, dm, warm, restart, checked, .. } = cmd {
        spec.memory_mib = *memory_mib;
        spec.restart = *restart;
        spec.health = health(*checked).apply(None).unwrap();
        spec.warm = *warm;
        let backend = if *dm { DiskBackend::DmSnapshot } else { DiskBackend::Overlay };
        spec.root = RootDisk { backend, why: "asked for".to_owned() };
    }
    spec
}

pub(super) fn changes(cmd: &Cmd, spec: &VmSpec) -> Changes {
    let Cmd::Set { memory_mib, restart, checked, .. } = cmd else { return Changes::default() };
    let now = changed(cmd, spec);
    let other = |now: Size, before: Size| (now != before).then_some(now);
    Changes {
        memory_mib: *memory_mib,
        disk: other(now.disk, spec.disk),
        work_disk: other(now.work_disk, spec.work_disk),
        restart: *restart,
        health: checked.map(health),
        ..Changes::default()
    }
}

/// A check each second, or none.
pub(super) fn health(checked: bool) -> HealthChange {
    let second = Some(Duration::from_secs(1));
    let check = if checked { "true" } else { "" };
    let none = HealthChange { command: Some(check.to_owned()), ..HealthChange::default() };
    if checked {
        HealthChange { interval: second, timeout: second, retries: Some(2), ..none }
    } else {
        none
    }
}

fn changed(cmd: &Cmd, spec: &VmSpec) -> VmSpec {
    let Cmd::Set { more, memory_mib, restart, checked } = cmd else { return spec.clone() };
    let larger = |size: Size| Size::from_bytes(size.bytes() + Size::from_mib(*more).bytes());
    let checks = |checked| health(checked).apply(spec.health.as_ref()).unwrap();
    VmSpec {
        memory_mib: memory_mib.unwrap_or(spec.memory_mib),
        disk: larger(spec.disk),
        work_disk: larger(spec.work_disk),
        restart: restart.unwrap_or(spec.restart),
        health: checked.map_or_else(|| spec.health.clone(), checks),
        ..spec.clone()
    }
}

/// What state one operation that is in the books made of a VM. Nothing: it could not have been begun.
pub(super) fn states_after(
    before: Option<&Vm>,
    asked: Option<&(Cmd, VmSpec)>,
    op: &OpRecord,
    cut: bool,
) -> Vec<Option<Vm>> {
    use OpKind as K;
    let outcome = op.outcome.clone().unwrap_or(Outcome::Done);
    let done = outcome == Outcome::Done;
    let undone = matches!(outcome, Outcome::RolledBack { .. });
    let stuck = matches!(outcome, Outcome::Stuck { .. });
    let on = || Is::On(Run::default());
    if op.kind == K::CreateVm {
        let Some((Cmd::Create { start, .. }, spec)) = asked else { return vec![] };
        let (None, Some(id)) = (before, op.vm) else { return vec![] };
        let (wanted, due) = (Wanted::Stopped, false);
        let vm = |is| Some(Vm { id, spec: spec.clone(), is, disks_lag: false, wanted, due });
        return match &outcome {
            Outcome::Done if !start => vec![vm(Is::Created)],
            Outcome::Done if cut => vec![vm(on()), vm(Is::Created)],
            Outcome::Done => vec![vm(on())],
            Outcome::RolledBack { step, .. } if step == "ensure-disks" => vec![None],
            Outcome::RolledBack { .. } => vec![vm(Is::Stopped)],
            Outcome::Stuck { .. } => vec![vm(Is::Error)],
            Outcome::Unchanged(_) => vec![],
        };
    }
    let Some(vm) = before.filter(|vm| op.vm == Some(vm.id)) else { return vec![] };
    let state = vm.state();
    let verb = match op.kind {
        K::StartVm => Some(Verb::Start),
        K::StopVm => Some(Verb::Stop),
        K::KillVm => Some(Verb::Kill),
        K::RestartVm => Some(Verb::Restart),
        K::DeleteVm => Some(Verb::Delete),
        K::SuspendVm => Some(Verb::Suspend),
        K::ResumeVm => Some(Verb::Resume),
        _ => None,
    };
    if verb.is_some_and(|verb| admits(state, verb).is_err()) {
        return vec![];
    }
    let ends = |is: Is| if done { vec![vm.to(is)] } else { vec![] };
    if stuck && op.kind != K::SetVm {
        return vec![vm.to(Is::Error)];
    }
    match (op.kind, &vm.is) {
        (K::StartVm | K::RestartVm, _) => vec![vm.to(if done { on() } else { Is::Stopped })],
        (K::StopVm | K::KillVm, _) => ends(Is::Stopped),
        (K::DeleteVm, _) if done => vec![None],
        (K::SuspendVm, Is::On(run)) if done => vec![vm.to(Is::Suspended(run.boot))],
        (K::SuspendVm, _) if undone => vec![Some(vm.clone())],
        (K::ResumeVm, Is::Suspended(boot)) if done => {
            vec![vm.to(Is::On(Run { process: None, boot: *boot }))]
        }
        (K::ResumeVm, _) if undone => vec![Some(vm.clone())],
        (K::SetVm, _) if done || stuck => {
            // From what it was when it was asked for, as the request said.
            let Some((cmd, spec)) = asked else { return vec![] };
            let VmSpec { memory_mib, disk, work_disk, restart, health, .. } = changed(cmd, spec);
            let set = changes(cmd, spec);
            let mut vm = Vm { disks_lag: stuck, ..vm.clone() };
            vm.spec.memory_mib = set.memory_mib.map_or(vm.spec.memory_mib, |_| memory_mib);
            vm.spec.disk = set.disk.map_or(vm.spec.disk, |_| disk);
            vm.spec.work_disk = set.work_disk.map_or(vm.spec.work_disk, |_| work_disk);
            vm.spec.restart = set.restart.map_or(vm.spec.restart, |_| restart);
            if set.health.is_some() {
                vm.spec.health = health;
            }
            vec![Some(vm)]
        }
        (K::CleanUpVm, Is::Crashed | Is::Stopped | Is::GaveUp) if done => vec![Some(vm.clone())],
        _ => vec![],
    }
}

/// An operation of the books, and what was asked for if it was.
pub(super) type Told = (Option<(Cmd, VmSpec)>, OpRecord);

/// Everything that may have become of a VM. Those that were asked for together were begun in some order.
pub(super) fn candidates(
    before: Option<&Vm>,
    ops: &[Told],
    meanwhile: &Meanwhile,
) -> Vec<Option<Vm>> {
    let begun = spread(before.cloned(), meanwhile);
    // By the set of operations that are over, as bits.
    let mut ends: Vec<Vec<Option<Vm>>> = vec![vec![]; 1 << ops.len()];
    ends[0] = begun;
    for over in 0..ends.len() {
        for (at, (asked, op)) in ops.iter().enumerate().filter(|(at, _)| over & (1 << at) == 0) {
            let next = over | (1 << at);
            for before in ends[over].clone() {
                for end in after(before.as_ref(), asked.as_ref(), op, meanwhile) {
                    for end in spread(end, meanwhile) {
                        if !ends[next].contains(&end) {
                            ends[next].push(end);
                        }
                    }
                }
            }
        }
    }
    let mut ends = ends.pop().unwrap_or_default();
    // A process of another boot is none, and nobody but its policy has begun a new one.
    let policy = |vm: &Vm| vm.spec.restart != RestartPolicy::No;
    ends.retain(|end| {
        !end.as_ref().is_some_and(|vm| meanwhile.rebooted && vm.is_on() && !policy(vm))
    });
    ends
}

/// Whether a VM that is in the store is this one; if so, as it was seen.
pub(super) fn seen_as(vm: &Vm, record: &VmRecord, world: &World) -> Option<Vm> {
    if (vm.id, &vm.spec, vm.state()) != (record.id, &record.spec, record.state) {
        return None;
    }
    let due = record.restarts.next_unix_ms.is_some();
    let wished = (vm.wanted, vm.due) == (record.wanted, due);
    let run = match &vm.is {
        // What is tried next depends on what could not be taken down.
        Is::Error => return Some(Vm { wanted: record.wanted, due, ..vm.clone() }),
        _ if !wished => return None,
        Is::GaveUp => return has_given_up(record).then(|| vm.clone()),
        Is::On(run) => run,
        _ => return Some(vm.clone()),
    };
    let process = world.processes.get(&vm.id)?;
    let same = run.process.as_ref().is_none_or(|known| *known == process.identity)
        && run.boot.is_none_or(|known| known == process.boot);
    let seen = Run { process: Some(process.identity.clone()), boot: Some(process.boot) };
    if same { vm.to(Is::On(seen)) } else { None }
}

/// The whole world, if `base` is what there was before the first VM.
pub(super) fn world_of(model: &Model, base: &World, taps: &[TapLease], seen: &World) -> World {
    // One that is leased to what is broken may be gone with a boot of the host.
    let broken = |id: &VmId| model.values().any(|vm| vm.id == *id && vm.is == Is::Error);
    let there = |lease: &&TapLease| {
        seen.taps.contains(&lease.tap) || !lease.vm.as_ref().is_some_and(broken)
    };
    let mut world = World {
        taps: taps.iter().filter(there).map(|lease| lease.tap.clone()).collect(),
        snapshots: seen.snapshots.clone(),
        ill: seen.ill.clone(),
        ..base.clone()
    };
    for vm in model.values() {
        let plan = DiskPlan::for_vm(vm.id, &vm.spec);
        let made = seen.disks.get(&vm.id).filter(|_| vm.disks_lag).cloned();
        world.disks.insert(vm.id, made.unwrap_or(plan));
        match &vm.is {
            Is::On(Run { process, boot }) => {
                let (Some(identity), Some(boot)) = (process.clone(), *boot) else { continue };
                let process = SimProcess { identity, paused: false, boot, guest: Some(vm.id) };
                world.processes.insert(vm.id, process);
                world.configs.insert(vm.id);
                world.run_dirs.insert(vm.id);
                if vm.spec.root.backend == DiskBackend::DmSnapshot {
                    world.open_roots.insert(vm.id);
                }
                let address = seen.names.get(&vm.spec.name).copied();
                let address = address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
                world.names.insert(vm.spec.name.clone(), address);
                world.nat.insert(vm.id, address);
            }
            Is::Suspended(boot) => {
                let saved = seen.memory.get(&vm.id);
                let boot = boot.or(saved.map(|memory| memory.boot)).unwrap_or_default();
                let memory = SimMemory { kept: true, boot, version: "1".to_owned() };
                world.memory.insert(vm.id, memory);
            }
            Is::Error | Is::GaveUp | Is::Created | Is::Stopped | Is::Crashed => {}
        }
    }
    world
}

/// The world without what a VM may have left that could not be taken down.
pub(super) fn without_broken(model: &Model, mut world: World) -> World {
    for vm in model.values().filter(|vm| vm.is == Is::Error) {
        let id = &vm.id;
        drop((world.nat.remove(id), world.disks.remove(id), world.processes.remove(id)));
        drop((world.memory.remove(id), world.names.remove(&vm.spec.name)));
        world.open_roots.remove(id);
        world.configs.remove(id);
        world.run_dirs.remove(id);
    }
    world
}

/// What a daemon must answer when nothing else goes on and nothing goes wrong.
pub(super) fn predicted(model: &Model, host: u64, overhead: u64, name: &str, cmd: &Cmd) -> Said {
    let taken = |vm: &Vm| u64::from(vm.spec.memory_mib) + overhead;
    let committed: u64 = model.values().filter(|vm| vm.is_on()).map(taken).sum();
    let fits = |memory: u32, others: u64| u64::from(memory) + overhead + others <= host;
    let refused = Said::Refused(Code::Refused);
    let Some(vm) = model.get(name) else {
        let Cmd::Create { memory_mib, start, .. } = cmd else {
            return Said::Refused(Code::NotFound);
        };
        let others = if *start { committed } else { 0 };
        return if fits(*memory_mib, others) { Said::Done } else { refused };
    };
    let room = vm.is_on() || fits(vm.spec.memory_mib, committed);
    let verb = match cmd {
        Cmd::Create { memory_mib, start, .. } => {
            let others = if *start { committed } else { 0 };
            let room = fits(*memory_mib, others);
            return if room { Said::Refused(Code::Exists) } else { refused };
        }
        Cmd::Set { memory_mib, .. } => {
            let other = memory_mib.is_some_and(|memory| memory != vm.spec.memory_mib);
            let off = matches!(vm.is, Is::Created | Is::Stopped | Is::Crashed);
            return if other && !off { refused } else { Said::Done };
        }
        Cmd::Start | Cmd::StartCold | Cmd::Resume | Cmd::Restart if !room => return refused,
        Cmd::Start | Cmd::StartCold => Verb::Start,
        Cmd::Resume => Verb::Resume,
        Cmd::Restart => Verb::Restart,
        Cmd::Stop => Verb::Stop,
        Cmd::Kill(_) => Verb::Kill,
        Cmd::Suspend => Verb::Suspend,
        Cmd::Delete => Verb::Delete,
    };
    let ends = matches!(cmd, Cmd::Stop | Cmd::Kill(_));
    match admits(vm.state(), verb) {
        Ok(()) => Said::Done,
        // It is off and would not have stayed so.
        Err(crate::model::Refused::Already(_)) if vm.due && ends => Said::Done,
        Err(crate::model::Refused::Already(_)) => Said::Unchanged,
        Err(_) => refused,
    }
}
