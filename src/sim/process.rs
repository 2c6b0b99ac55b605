//! Processes: they begin, they end on demand, and who waits for an end is woken by it.

use futures::FutureExt;

use super::state::State;
use super::{SimProcess, SimWorld};
use crate::model::{
    Code, ExitReport, HostSeen, OpId, ProcessIdentity, ProcessUsage, ResourceKind, VmId,
};
use crate::ports::{HostError, PortFuture, ProcessHost, SpawnRequest};

const FIRST_PID: u32 = 1000;

impl ProcessHost for SimWorld {
    fn host_boot_id(&self) -> Result<String, HostError> {
        Ok(self.lock().host_boot_id())
    }

    fn ensure_spawned<'a>(
        &'a self,
        _op: OpId,
        request: &'a SpawnRequest,
    ) -> PortFuture<'a, ProcessIdentity> {
        let spawn = move |state: &mut State| {
            let vm = request.vm;
            if let Some(process) = state.world.processes.get(&vm) {
                return Ok(process.identity.clone());
            }
            check_spawn(state, request)?;
            state.spawned += 1;
            let identity = ProcessIdentity {
                pid: FIRST_PID + state.spawned,
                start_ticks: u64::from(state.spawned),
                host_boot_id: state.host_boot_id(),
            };
            state.exits.remove(&vm);
            let guest = (!state.blank.contains(&vm)).then_some(vm);
            let boot = state.spawned;
            let process = SimProcess { identity: identity.clone(), paused: false, boot, guest };
            state.world.processes.insert(vm, process);
            state.wake(vm);
            Ok(identity)
        };
        self.call("process.ensure_spawned", spawn).boxed()
    }

    fn find(&self, _op: OpId, vm: VmId) -> PortFuture<'_, Option<ProcessIdentity>> {
        let find = move |state: &mut State| Ok(state.running(vm));
        self.call("process.find", find).boxed()
    }

    fn survey(&self, _op: OpId) -> PortFuture<'_, HostSeen> {
        use ResourceKind as K;
        let look = |state: &mut State| {
            let things = state.world.things().into_iter();
            let ours = |kind| matches!(kind, K::Process | K::Cgroup | K::Jail);
            let things = things.filter(|thing| ours(thing.kind)).collect();
            Ok(HostSeen { things, ..HostSeen::default() })
        };
        self.call("process.survey", look).boxed()
    }

    fn is_alive(&self, process: &ProcessIdentity) -> bool {
        self.lock().world.processes.values().any(|running| running.identity == *process)
    }

    fn is_stopped(&self, process: &ProcessIdentity) -> bool {
        let state = self.lock();
        let stopped = |vm: &VmId| state.world.stopped.contains(vm);
        state.world.processes.iter().any(|(vm, one)| one.identity == *process && stopped(vm))
    }

    fn signal<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        process: &'a ProcessIdentity,
        signal: i32,
    ) -> PortFuture<'a, ()> {
        let signal = move |state: &mut State| {
            if !(1..=64).contains(&signal) {
                return Err(HostError::new(Code::Invalid, "send signal to VM", vm.short()));
            }
            if state.running(vm).as_ref() == Some(process) {
                state.end_process(vm, &format!("killed by signal {signal}"));
            }
            Ok(())
        };
        self.call("process.signal", signal).boxed()
    }

    fn ensure_gone(&self, _op: OpId, vm: VmId) -> PortFuture<'_, Option<ExitReport>> {
        let end = move |state: &mut State| {
            state.world.cgroups.remove(&vm);
            state.world.jails.remove(&vm);
            Ok(state.end_process(vm, "killed by SIGKILL"))
        };
        self.call("process.ensure_gone", end).boxed()
    }

    fn usage<'a>(
        &'a self,
        vm: VmId,
        process: &'a ProcessIdentity,
    ) -> PortFuture<'a, Option<ProcessUsage>> {
        // A tenth of a CPU, since the host was made.
        let cpu_us = u64::try_from(self.born.elapsed().as_micros() / 10).unwrap_or(u64::MAX);
        let usage = move |state: &mut State| {
            let runs = state.running(vm).is_some_and(|running| running == *process);
            Ok(runs.then_some(ProcessUsage {
                cpu_us,
                resident_bytes: 64 << 20,
                cgroup_bytes: Some(80 << 20),
            }))
        };
        self.call("process.usage", usage).boxed()
    }

    fn exited<'a>(&'a self, vm: VmId, process: &'a ProcessIdentity) -> PortFuture<'a, ExitReport> {
        async move {
            self.call("process.exited", |_| Ok(())).await?;
            let ended = |state: &State| match state.running(vm) {
                Some(running) if running == *process => None,
                _ => Some(match state.exits.get(&vm) {
                    Some((ended, report)) if ended == process => report.clone(),
                    _ => ExitReport { unix_ms: 0, how: "unknown".to_owned() },
                }),
            };
            Ok(self.until(vm, ended).await)
        }
        .boxed()
    }
}

impl State {
    fn host_boot_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.reboots)
    }

    pub(super) fn running(&self, vm: VmId) -> Option<ProcessIdentity> {
        self.world.processes.get(&vm).map(|process| process.identity.clone())
    }
}

/// A VMM without its files, sockets' directory or tap would end at once; the fake says so.
fn check_spawn(state: &State, request: &SpawnRequest) -> Result<(), HostError> {
    let (vm, world) = (request.vm, &state.world);
    let tap = request.command.args.iter().find_map(|arg| arg.strip_prefix("tap="));
    let missing = if !world.disks.contains_key(&vm) {
        "disks"
    } else if !world.configs.contains(&vm) {
        "configuration drive"
    } else if !world.run_dirs.contains(&vm) {
        "run directory"
    } else if !world.taps.iter().any(|there| Some(there.0.as_str()) == tap) {
        "tap"
    } else {
        return Ok(());
    };
    let error = HostError::new(Code::NotFound, "start VMM of", vm.short());
    Err(error.because(format!("there is no {missing}")))
}
