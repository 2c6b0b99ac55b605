//! What every operation must survive. Each operation's tests name a case and get the whole suite:
//! faults of every kind at every port call, cancels, crashes at every journal write and again in
//! the recovery. Whatever the outcome says, the simulated world must be one that the plan's phases
//! lead to, and nothing in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{
    Direction, Finished, Journal, JournalLost, Plan, RunError, Settings, StepCx, create_and_start,
    create_vm, plan_for_recovery, recover, run, suspend_vm,
};
use crate::model::{
    Digest, DiskBackend, Entry, LedgerChange, OpId, OpKind, Outcome, ResourceKind, RestartHistory,
    RestartPolicy, RootDisk, Size, Subnet, TapName, VmId, VmKeys, VmRecord, VmSpec, VmState,
    VmmChoice, Wanted,
};
use crate::ports::{ImageFile, KernelFile};
use crate::sim::{At, Fault, SimOptions, SimWorld, World, ports};

pub(super) const OP: OpId = OpId([1; 16]);
const IMAGE: Digest = Digest([2; 32]);
const KERNEL: Digest = Digest([3; 32]);

/// One operation on one world.
pub(super) struct Case {
    pub(super) kind: OpKind,
    pub(super) plan: fn(&VmRecord) -> Plan,
    pub(super) before: World,
    pub(super) record: VmRecord,
    /// More than zero: the waits for the guest really wait.
    pub(super) boot: Duration,
}

pub(super) fn subnet() -> Subnet {
    "172.16.0.0/24".parse().unwrap()
}

pub(super) fn record() -> VmRecord {
    VmRecord {
        id: VmId([7; 16]),
        spec: VmSpec {
            name: "web".parse().unwrap(),
            image: "debian".to_owned(),
            kernel: "debian".to_owned(),
            vcpu: 1,
            memory_mib: 256,
            disk: Size::from_mib(1024),
            work_disk: Size::from_mib(1024),
            nat: true,
            env: vec![],
            vmm: VmmChoice::Auto,
            // The one with the most to take away.
            root: RootDisk { backend: DiskBackend::DmSnapshot, why: String::new() },
            console: false,
            warm: false,
            restart: RestartPolicy::No,
            health: None,
        },
        state: VmState::Created,
        address: [172, 16, 0, 2].into(),
        image: IMAGE,
        kernel: KERNEL,
        keys: VmKeys {
            host_private: "a".to_owned(),
            host_public: "b".to_owned(),
            client_private: "c".to_owned(),
            client_public: "d".to_owned(),
        },
        created_unix_ms: 1,
        last_failure: None,
        last_exit: None,
        wanted: Wanted::Stopped,
        restarts: RestartHistory::default(),
    }
}

/// A host with a bridge, two warm taps, an image and a kernel.
pub(super) fn bare() -> World {
    let size = Size::from_mib(1);
    let image = ImageFile {
        digest: IMAGE,
        uuid: [4; 16],
        size,
        source: "test".to_owned(),
        config: None,
        kernel: None,
    };
    let kernel = KernelFile {
        digest: KERNEL,
        version: "1".to_owned(),
        distro: "test".to_owned(),
        arch: "x86_64".to_owned(),
        modules: 0,
        size,
        source: "test".to_owned(),
        features: crate::model::KernelFeatures::default(),
    };
    World {
        bridge: true,
        taps: [0, 1].map(|n| TapName::new("t", n)).into(),
        images: [(IMAGE, image)].into(),
        kernels: [(KERNEL, kernel)].into(),
        ..World::default()
    }
}

pub(super) async fn created() -> World {
    world_after(bare(), &create_vm(&record())).await
}

pub(super) async fn running() -> World {
    world_after(bare(), &create_and_start(&record())).await
}

/// The VMM is gone, all else is still there.
pub(super) async fn crashed() -> World {
    let mut world = running().await;
    world.processes.clear();
    world
}

pub(super) async fn suspended() -> World {
    world_after(running().await, &suspend_vm()).await
}

async fn world_after(before: World, plan: &Plan) -> World {
    world_of(record(), before, plan).await
}

async fn world_of(record: VmRecord, before: World, plan: &Plan) -> World {
    let (cx, host) = rig_of(record, before, Duration::ZERO);
    let finished = run(plan, &cx, &mut MemJournal::default()).await.unwrap();
    assert_eq!(finished.outcome, Outcome::Done);
    host.world()
}

pub(super) fn rig(world: World, boot: Duration) -> (StepCx, Arc<SimWorld>) {
    rig_of(record(), world, boot)
}

pub(super) fn rig_of(record: VmRecord, world: World, boot: Duration) -> (StepCx, Arc<SimWorld>) {
    let (ports, host) = ports(SimOptions { world, boot, ..SimOptions::new(subnet()) });
    let settings = Arc::new(Settings::new(subnet(), vec![]));
    (StepCx::new(OP, record, ports, settings), host)
}

/// A journal in memory that can die at its nth write, before or after keeping it, and the ledger
/// beside it.
#[derive(Clone, Default)]
pub(super) struct MemJournal {
    pub(super) entries: Vec<Entry>,
    ledger: BTreeMap<(VmId, ResourceKind), String>,
    pub(super) writes: usize,
    dies: Option<(usize, bool)>,
}

impl Journal for MemJournal {
    fn record(
        &mut self,
        entries: Vec<Entry>,
        ledger: Vec<LedgerChange>,
    ) -> BoxFuture<'_, Result<(), JournalLost>> {
        assert!(!entries.is_empty(), "an empty write costs a commit");
        let dies = self.dies.filter(|(at, _)| *at == self.writes);
        self.writes += 1;
        if dies.is_none_or(|(_, keeps)| keeps) {
            self.entries.extend(entries);
            for change in ledger {
                match change {
                    LedgerChange::Made(row) => {
                        drop(self.ledger.insert((row.vm, row.kind), row.name));
                    }
                    LedgerChange::Gone(vm, kind) => drop(self.ledger.remove(&(vm, kind))),
                }
            }
        }
        let result = if dies.is_some() { Err(JournalLost) } else { Ok(()) };
        std::future::ready(result).boxed()
    }
}

impl MemJournal {
    /// Of a host with such a world: each thing has its row.
    fn on(world: &World) -> Self {
        let rows = world.things().into_iter();
        let rows = rows.filter_map(|thing| Some(((thing.vm?, thing.kind), thing.name)));
        Self { ledger: rows.collect(), ..Self::default() }
    }

    /// What is there has a row, whatever died.
    #[track_caller]
    fn covers(&self, world: &World, why: &str) {
        let rows = Self::on(world).ledger;
        let bare: Vec<_> = rows.iter().filter(|(key, _)| !self.ledger.contains_key(key)).collect();
        assert!(bare.is_empty(), "{why}: without a row: {bare:?}");
    }

    /// And what has a row is there.
    #[track_caller]
    fn agrees(&self, world: &World, why: &str) {
        assert_eq!(self.ledger, Self::on(world).ledger, "{why}: ledger and world");
    }
}

impl Case {
    pub(super) fn new(kind: OpKind, plan: fn(&VmRecord) -> Plan, before: World) -> Self {
        Self { kind, plan, before, record: record(), boot: Duration::ZERO }
    }

    pub(super) fn slow_boot(self) -> Self {
        Self { boot: Duration::from_millis(5), ..self }
    }

    pub(super) fn of(self, record: VmRecord) -> Self {
        Self { record, ..self }
    }

    fn plan(&self) -> Plan {
        (self.plan)(&self.record)
    }

    fn rig(&self, world: World) -> (StepCx, Arc<SimWorld>) {
        rig_of(self.record.clone(), world, self.boot)
    }

    /// The worlds between the phases: before the first, after the first, … after the last.
    async fn worlds(&self) -> Vec<World> {
        let mut worlds = vec![self.before.clone().shape()];
        for phases in 1..=self.plan().len() {
            let mut plan = self.plan();
            plan.truncate(phases);
            worlds.push(world_of(self.record.clone(), self.before.clone(), &plan).await.shape());
        }
        worlds
    }

    /// How many port calls a run takes when nothing goes wrong.
    async fn calls(&self) -> usize {
        let (cx, host) = self.rig(self.before.clone());
        run(&self.plan(), &cx, &mut MemJournal::default()).await.unwrap();
        host.calls()
    }

    /// The outcome, the world and the ledger agree.
    #[track_caller]
    fn check(
        &self,
        plan: &Plan,
        worlds: &[World],
        (host, journal): (&SimWorld, &MemJournal),
        end: &Finished,
        why: &str,
    ) {
        journal.agrees(&host.world(), why);
        self.check_world(plan, worlds, host, end, why);
    }

    #[track_caller]
    fn check_world(
        &self,
        plan: &Plan,
        worlds: &[World],
        host: &SimWorld,
        end: &Finished,
        why: &str,
    ) {
        let world = host.world().shape();
        let phase = match &end.outcome {
            Outcome::Done => plan.len(),
            Outcome::RolledBack { step, .. } => {
                let holds = |phase: &super::Phase| phase.steps.iter().any(|s| s.name() == step);
                // The plan of a recovery may have a phase before it that found nothing to do.
                self.plan().iter().position(holds).unwrap()
            }
            other => panic!("{why}: {other:?}"),
        };
        assert_eq!(end.failure.is_some(), end.outcome != Outcome::Done, "{why}");
        assert_eq!(world, worlds[phase], "{why}: {:?}", end.outcome);
    }

    pub(super) async fn names_are_unique(&self) {
        let plan = self.plan();
        let names: Vec<_> = plan.iter().flat_map(|p| &p.steps).map(|s| s.name()).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        let (cx, _) = self.rig(self.before.clone());
        for step in plan.iter().flat_map(|phase| &phase.steps) {
            let first = step.has_effect() || step.makes(&cx).is_empty();
            assert!(first, "{} makes what is not yet in the ledger", step.name());
        }
    }

    pub(super) async fn fault_anywhere_unwinds_or_goes_on(&self) {
        let (worlds, plan, calls) = (self.worlds().await, self.plan(), self.calls().await);
        for at in 0..calls {
            for fault in [Fault::Refuse, Fault::NoSpace, Fault::HalfDone, Fault::Panic, Fault::Hang]
            {
                // The second fault hits the undo, or the second try, of what the first one broke.
                for second in [None, Some(Fault::Refuse), Some(Fault::HalfDone)] {
                    let why = format!("{fault:?} at call {at}, then {second:?}");
                    let (cx, host) = self.rig(self.before.clone());
                    host.plan(At::Call(at), fault.clone());
                    if let Some(second) = second {
                        host.plan(At::Call(at + 1), second);
                    }
                    let mut journal = MemJournal::on(&self.before);
                    let end = run(&plan, &cx, &mut journal).await.unwrap();
                    self.check(&plan, &worlds, (&host, &journal), &end, &why);
                }
            }
        }
    }

    pub(super) async fn cancel_anywhere_unwinds_or_goes_on(&self) {
        let (worlds, plan, calls) = (self.worlds().await, self.plan(), self.calls().await);
        for at in 0..calls {
            let cancel = CancellationToken::new();
            let (cx, host) = self.rig(self.before.clone());
            host.plan(At::Call(at), Fault::Cancel(cancel.clone()));
            let cx = StepCx { cancel, ..cx };
            let mut journal = MemJournal::on(&self.before);
            let end = run(&plan, &cx, &mut journal).await.unwrap();
            let why = format!("cancel at call {at}");
            self.check(&plan, &worlds, (&host, &journal), &end, &why);
            if plan.iter().all(|phase| phase.direction == Direction::Forward) {
                assert_eq!(end.outcome, Outcome::Done, "a teardown ignores cancels");
            }
        }
    }

    /// Both halves bear being repeated, and undo bears that nothing was done.
    pub(super) async fn both_halves_are_idempotent(&self) {
        let (worlds, plan) = (self.worlds().await, self.plan());
        let (cx, host) = self.rig(self.before.clone());
        for (phase, (before, after)) in plan.iter().zip(worlds.iter().zip(&worlds[1..])) {
            for round in 0..2 {
                for step in &phase.steps {
                    if round == 0 {
                        step.undo(&cx).await.unwrap();
                    }
                    for _ in 0..2 {
                        let output = step.run(&cx).await.unwrap();
                        step.recall(&cx, &output);
                    }
                }
                assert_eq!(&host.world().shape(), after);
                if phase.direction == Direction::Forward || round == 1 {
                    continue;
                }
                for step in phase.steps.iter().rev() {
                    step.undo(&cx).await.unwrap();
                    step.undo(&cx).await.unwrap();
                }
                assert_eq!(&host.world().shape(), before);
            }
        }
    }

    /// Dies at every journal write, kept or lost, of good runs and of bad ones; then dies at every
    /// write of the recovery too; then recovers in peace.
    pub(super) async fn crash_anywhere_recovers(&self) {
        let (worlds, calls) = (self.worlds().await, self.calls().await);
        let bad = [calls - 1, calls / 2].map(|at| Some((at, Fault::HalfDone)));
        for fault in [None].into_iter().chain(bad) {
            for keeps in [true, false] {
                for first in 0.. {
                    let (cx, host) = self.rig(self.before.clone());
                    if let Some((at, fault)) = fault.clone() {
                        host.plan(At::Call(at), fault);
                    }
                    let mut journal =
                        MemJournal { dies: Some((first, keeps)), ..MemJournal::on(&self.before) };
                    let Err(lost) = run(&self.plan(), &cx, &mut journal).await else { break };
                    assert_eq!(lost, RunError::Journal(JournalLost));
                    journal.covers(&host.world(), &format!("crash at {first}, {keeps}"));
                    self.crash_again(&worlds, &host.world(), &journal, keeps).await;
                }
            }
        }
    }

    /// The host goes down at every journal write, kept or lost; then the next boot recovers. What is on
    /// its disk must be of one of the worlds between the phases.
    pub(super) async fn reboot_anywhere_recovers(&self) {
        let mut worlds = vec![];
        for world in self.worlds().await {
            worlds.push(world.after_reboot().shape());
        }
        for keeps in [true, false] {
            for at in 0.. {
                let (cx, host) = self.rig(self.before.clone());
                let mut journal =
                    MemJournal { dies: Some((at, keeps)), ..MemJournal::on(&self.before) };
                if run(&self.plan(), &cx, &mut journal).await.is_ok() {
                    break;
                }
                let (_, host) = self.rig(host.world().after_reboot());
                journal.dies = None;
                let (plan, end) = self.recover(&host, &mut journal).await.unwrap();
                let why = format!("reboot at write {at}, {:?}", journal.entries);
                journal.covers(&host.world(), &why);
                host.reboot(); // what a recovery made anew is not the question
                self.check_world(&plan, &worlds, &host, &end, &why);
            }
        }
    }

    async fn crash_again(&self, worlds: &[World], left: &World, dead: &MemJournal, keeps: bool) {
        for second in 0.. {
            let (_, host) = self.rig(left.clone());
            let mut journal = MemJournal { dies: Some((second, keeps)), writes: 0, ..dead.clone() };
            let crashed = self.recover(&host, &mut journal).await;
            let why = format!("second crash at {second}, {:?}", journal.entries);
            journal.covers(&host.world(), &why);
            journal.dies = None;
            let (plan, end) = self.recover(&host, &mut journal).await.unwrap();
            self.check(&plan, worlds, (&host, &journal), &end, &why);
            if crashed.is_ok() {
                return;
            }
        }
    }

    async fn recover(
        &self,
        host: &Arc<SimWorld>,
        journal: &mut MemJournal,
    ) -> Result<(Plan, Finished), RunError> {
        let history = journal.entries.clone();
        let plan = plan_for_recovery(self.kind, &self.record, &history).unwrap();
        let (ports, settings) = (host.ports(), Arc::new(Settings::new(subnet(), vec![])));
        let cx = StepCx::new(OP, self.record.clone(), ports, settings);
        let end = recover(&plan, &cx, journal, &history).await?;
        Ok((plan, end))
    }

    /// From some call on everything fails: then nothing can be undone, but later it can.
    pub(super) async fn failed_undo_is_stuck_and_retryable(&self) {
        let (worlds, plan, calls) = (self.worlds().await, self.plan(), self.calls().await);
        let mut stuck = 0;
        for at in 0..calls {
            let (cx, host) = self.rig(self.before.clone());
            host.plan(At::From(at), Fault::Refuse);
            let mut journal = MemJournal::on(&self.before);
            let end = run(&plan, &cx, &mut journal).await.unwrap();
            if !matches!(end.outcome, Outcome::Stuck { .. }) {
                let why = format!("all fails from call {at}");
                self.check(&plan, &worlds, (&host, &journal), &end, &why);
                continue;
            }
            stuck += 1;
            let why = format!("stuck from call {at}");
            journal.covers(&host.world(), &why);
            host.forget_faults();
            let (plan, end) = self.recover(&host, &mut journal).await.unwrap();
            self.check(&plan, &worlds, (&host, &journal), &end, &why);
        }
        assert!(stuck > 0);
    }
}

/// The whole suite for one case.
macro_rules! survives {
    ($name:ident, $case:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn names_are_unique() {
                $case.names_are_unique().await;
            }

            #[tokio::test(start_paused = true)]
            async fn fault_anywhere_unwinds_or_goes_on() {
                $case.fault_anywhere_unwinds_or_goes_on().await;
            }

            #[tokio::test(start_paused = true)]
            async fn cancel_anywhere_unwinds_or_goes_on() {
                $case.cancel_anywhere_unwinds_or_goes_on().await;
            }

            #[tokio::test(start_paused = true)]
            async fn both_halves_are_idempotent() {
                $case.both_halves_are_idempotent().await;
            }

            #[tokio::test(start_paused = true)]
            async fn crash_anywhere_recovers() {
                $case.crash_anywhere_recovers().await;
            }

            #[tokio::test(start_paused = true)]
            async fn reboot_anywhere_recovers() {
                $case.reboot_anywhere_recovers().await;
            }

            #[tokio::test(start_paused = true)]
            async fn failed_undo_is_stuck_and_retryable() {
                $case.failed_undo_is_stuck_and_retryable().await;
            }
        }
    };
}
pub(super) use survives;
