//! The simulated host itself: the world behind a lock, the calls that went through, the faults
//! that are planned. Each port's fake is an `impl` for [`SimWorld`] in a file of its own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{At, Fault, SimOptions, World};
use crate::model::{Code, ExitReport, ProcessIdentity, VmId};
use crate::ports::HostError;

#[derive(Debug)]
pub struct SimWorld {
    pub(super) options: SimOptions,
    pub(super) born: Instant,
    /// For how long the host slept, in milliseconds. Read also by who holds the lock.
    pub(super) slept_ms: AtomicU64,
    /// By how much its clock was set.
    pub(super) set_by_ms: AtomicI64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) world: World,
    /// How processes ended, for those who watch them.
    pub(super) exits: HashMap<VmId, (ProcessIdentity, ExitReport)>,
    /// How often the host was restarted.
    pub(super) reboots: u32,
    pub(super) spawned: u32,
    pub(super) keys_made: u64,
    /// How often the tags of all registries were moved.
    pub(super) tags_moved: u32,
    /// Who makes which snapshot.
    pub(super) claims: HashMap<PathBuf, Weak<()>>,
    /// Where a VM's disks and memory were copied to.
    pub(super) copied: HashSet<PathBuf>,
    /// Whose configuration drive tells of nobody.
    pub(super) blank: HashSet<VmId>,
    /// Whose saved memory is a blank guest's.
    pub(super) blank_memory: HashSet<VmId>,
    calls: usize,
    /// Calls that will never be answered.
    hanging: usize,
    by_name: HashMap<&'static str, usize>,
    faults: Vec<(At, Fault)>,
    /// Cancelled when the daemon dies.
    power: CancellationToken,
    /// Told when the VM's process begins or ends.
    watched: HashMap<VmId, Arc<Notify>>,
}

impl SimWorld {
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        let world = options.world.clone();
        let state = State { world, faults: options.faults.clone(), ..State::default() };
        Self {
            options,
            born: Instant::now(),
            slept_ms: AtomicU64::new(0),
            set_by_ms: AtomicI64::new(0),
            state: Mutex::new(state),
        }
    }

    /// A copy of what is on the host.
    #[must_use]
    pub fn world(&self) -> World {
        self.lock().world.clone()
    }

    /// Changes the host behind everybody's back.
    pub fn edit(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.lock().world);
    }

    /// How many calls there were, refused ones too.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// How many calls of that name there were.
    #[must_use]
    pub fn calls_of(&self, name: &str) -> usize {
        self.lock().by_name.get(name).copied().unwrap_or(0)
    }

    /// How many calls of each name there were.
    #[must_use]
    pub fn tally(&self) -> HashMap<&'static str, usize> {
        self.lock().by_name.clone()
    }

    /// How many calls hang, by a fault.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.lock().hanging
    }

    /// Adds a fault for calls to come.
    pub fn plan(&self, at: At, fault: Fault) {
        self.lock().faults.push((at, fault));
    }

    pub fn forget_faults(&self) {
        self.lock().faults.clear();
    }

    /// The VM's process ends without being asked to. False: there is none.
    pub fn crash(&self, vm: VmId) -> bool {
        self.lock().end_process(vm, "killed by SIGKILL").is_some()
    }

    /// In every registry each tag stands for another image from now on.
    pub fn move_tags(&self) {
        self.lock().tags_moved += 1;
    }

    /// A new daemon is the one that calls: while this is not cancelled, it lives.
    pub fn serve(&self, power: CancellationToken) {
        self.lock().power = power;
    }

    /// The host is restarted: what is not on its disk is gone. Nobody is told, for whoever watched was
    /// a part of it.
    pub fn reboot(&self) {
        let mut state = self.lock();
        state.world = std::mem::take(&mut state.world).after_reboot();
        state.reboots += 1;
        state.exits.clear();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every effect passes here: latency, then the planned fault, then the change.
    pub(super) async fn call<T>(
        &self,
        name: &'static str,
        change: impl FnOnce(&mut State) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        self.alive().await;
        let fault = self.lock().count(name);
        let mut wait = self.options.latency;
        match &fault {
            Some(Fault::Cancel(token)) => token.cancel(),
            Some(Fault::Delay(delay)) => wait += *delay,
            Some(Fault::Die(false)) => self.die().await,
            Some(Fault::Ends(vm)) => drop(self.crash(*vm)),
            _ => {}
        }
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
            self.alive().await;
        }
        refuse(name, fault.as_ref())?;
        let answer = change(&mut self.lock())?;
        match fault {
            Some(Fault::HalfDone) => Err(failed(name, "interrupted half way")),
            Some(Fault::Hang) => {
                self.lock().hanging += 1;
                std::future::pending().await
            }
            Some(Fault::Die(_)) => {
                self.die().await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    /// Nothing is done for a daemon that is dead.
    pub(super) async fn alive(&self) {
        let dead = self.lock().power.is_cancelled();
        if dead {
            std::future::pending::<()>().await;
        }
    }

    async fn die(&self) {
        self.lock().power.cancel();
        self.alive().await;
    }

    /// As [`Self::call`] for the few methods that are not asynchronous; they cannot hang.
    pub(super) fn call_now<T>(
        &self,
        name: &'static str,
        answer: impl FnOnce() -> T,
    ) -> Result<T, HostError> {
        let fault = self.lock().count(name);
        match &fault {
            Some(Fault::Cancel(token)) => token.cancel(),
            Some(Fault::Die(_)) => self.lock().power.cancel(),
            Some(Fault::Ends(vm)) => drop(self.crash(*vm)),
            _ => {}
        }
        refuse(name, fault.as_ref())?;
        match fault {
            Some(Fault::HalfDone) => Err(failed(name, "interrupted half way")),
            _ => Ok(answer()),
        }
    }

    /// Waits until `look` finds something; looks again whenever the VM's process changes.
    pub(super) async fn until<T>(&self, vm: VmId, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let notify = Arc::clone(self.lock().watched.entry(vm).or_default());
            // Made before the look, so that no change falls between the two.
            let changed = notify.notified();
            let found = look(&self.lock());
            if let Some(found) = found {
                self.alive().await;
                return found;
            }
            changed.await;
        }
    }
}

impl State {
    fn count(&mut self, name: &'static str) -> Option<Fault> {
        let nth = self.by_name.entry(name).or_default();
        let (call, this) = (self.calls, *nth);
        *nth += 1;
        self.calls += 1;
        let hit = self.faults.iter().find(|(at, _)| at.hits(name, call, this));
        hit.map(|(_, fault)| fault.clone())
    }

    pub(super) fn end_process(&mut self, vm: VmId, how: &str) -> Option<ExitReport> {
        let process = self.world.processes.remove(&vm)?;
        self.world.stopped.remove(&vm);
        let report = ExitReport { unix_ms: 0, how: how.to_owned() };
        self.exits.insert(vm, (process.identity, report.clone()));
        self.wake(vm);
        Some(report)
    }

    pub(super) fn wake(&mut self, vm: VmId) {
        if let Some(notify) = self.watched.remove(&vm) {
            notify.notify_waiters();
        }
    }
}

fn refuse(name: &'static str, fault: Option<&Fault>) -> Result<(), HostError> {
    match fault {
        Some(Fault::Refuse) => Err(failed(name, "refused")),
        Some(Fault::NoSpace) => {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            Err(HostError::io("simulate", name, full))
        }
        Some(Fault::Panic) => panic!("planned panic in {name}"),
        _ => Ok(()),
    }
}

fn failed(name: &'static str, why: &'static str) -> HostError {
    HostError::new(Code::Host, "simulate", name).because(why)
}
