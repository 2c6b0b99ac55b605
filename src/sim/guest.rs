//! A guest that is ready as soon as its process runs, and ends it when asked to shut down.

use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::SimWorld;
use super::state::State;
use crate::model::{Code, OpId, VmId, VmKeys};
use crate::ports::{GuestCheck, GuestLink, GuestReady, GuestSetup, HostError, PortFuture, VmPaths};

/// A configuration drive that tells of nobody.
pub(super) const BLANK: &[u8] = b"blank";

impl GuestLink for SimWorld {
    fn make_keys(&self) -> PortFuture<'_, VmKeys> {
        let make = |state: &mut State| {
            state.keys_made += 1;
            let key = |what| format!("sim-{what}-{}", state.keys_made);
            Ok(VmKeys {
                host_private: key("host-private"),
                host_public: key("host-public"),
                client_private: key("client-private"),
                client_public: key("client-public"),
            })
        };
        self.call("guest.make_keys", make).boxed()
    }

    fn ssh_port(&self) -> u16 {
        22
    }

    fn config_drive(&self, _op: OpId, setup: &GuestSetup) -> Result<Vec<u8>, HostError> {
        self.call_now("guest.config_drive", || setup.record.id.0.to_vec())
    }

    fn blank_drive(&self, _op: OpId, _setup: &GuestSetup) -> Result<Vec<u8>, HostError> {
        self.call_now("guest.blank_drive", || BLANK.to_vec())
    }

    fn adopt<'a>(
        &'a self,
        _op: OpId,
        paths: &'a VmPaths,
        setup: &'a GuestSetup,
        _unix_ms: u64,
    ) -> PortFuture<'a, GuestReady> {
        async move {
            let vm = self.vm_of(paths)?;
            let adopt = |state: &mut State| {
                let process = state.world.processes.get_mut(&vm).ok_or_else(|| unreachable(vm))?;
                if process.guest.is_some() {
                    let error = HostError::new(Code::Invalid, "adopt guest", vm.short());
                    return Err(error.because("it is somebody already"));
                }
                process.guest = Some(setup.record.id);
                Ok(state.ready(vm))
            };
            self.call("guest.adopt", adopt).await
        }
        .boxed()
    }

    fn furnish<'a>(&'a self, _op: OpId, paths: &'a VmPaths) -> PortFuture<'a, Vec<String>> {
        async move {
            self.vm_of(paths)?;
            self.call("guest.furnish", |_| Ok(vec![])).await
        }
        .boxed()
    }

    fn await_ready<'a>(
        &'a self,
        _op: OpId,
        paths: &'a VmPaths,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, GuestReady> {
        let ready = async move {
            let vm = self.vm_of(paths)?;
            self.call("guest.await_ready", |_| Ok(())).await?;
            let process = self.until(vm, |state| state.running(vm)).await;
            if self.options.boot > Duration::ZERO {
                tokio::time::sleep(self.options.boot).await;
                // One that ended in the meantime never gets ready.
                let alive = |state: &State| state.running(vm).filter(|now| *now == process);
                self.until(vm, alive).await;
            }
            Ok(self.lock().ready(vm))
        };
        async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(HostError::new(Code::Cancelled, "await", "guest")),
                ready = ready => ready,
            }
        }
        .boxed()
    }

    fn shutdown<'a>(
        &'a self,
        _op: OpId,
        paths: &'a VmPaths,
        _grace: Duration,
    ) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            let end = |state: &mut State| {
                if state.world.stopped.contains(&vm) {
                    return Err(unreachable(vm));
                }
                state.end_process(vm, "exit status 0").map(drop).ok_or_else(|| unreachable(vm))
            };
            self.call("guest.shutdown", end).await
        }
        .boxed()
    }

    fn sync<'a>(&'a self, _op: OpId, paths: &'a VmPaths, _limit: Duration) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            self.call("guest.sync", |state| state.awake(vm)).await
        }
        .boxed()
    }

    fn set_clock<'a>(&'a self, _op: OpId, paths: &'a VmPaths, _now: u64) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            self.call("guest.set_clock", |state| state.awake(vm)).await
        }
        .boxed()
    }

    fn resumed<'a>(
        &'a self,
        _op: OpId,
        paths: &'a VmPaths,
        _now: u64,
        _limit: Duration,
    ) -> PortFuture<'a, String> {
        async move {
            let vm = self.vm_of(paths)?;
            let answer = |state: &mut State| {
                state.awake(vm)?;
                state.boot_id(vm).ok_or_else(|| unreachable(vm))
            };
            self.call("guest.resumed", answer).await
        }
        .boxed()
    }

    fn check<'a>(
        &'a self,
        _op: OpId,
        paths: &'a VmPaths,
        _command: &'a str,
        _limit: Duration,
    ) -> PortFuture<'a, GuestCheck> {
        async move {
            let vm = self.vm_of(paths)?;
            let check = |state: &mut State| {
                state.awake(vm)?;
                let healthy = !state.world.ill.contains(&vm);
                let how = format!("exit status {}", i32::from(!healthy));
                Ok(GuestCheck { healthy, how, output: String::new() })
            };
            self.call("guest.check", check).await
        }
        .boxed()
    }

    fn ping<'a>(&'a self, _op: OpId, paths: &'a VmPaths, _limit: Duration) -> PortFuture<'a, ()> {
        async move {
            let vm = self.vm_of(paths)?;
            self.call("guest.ping", |state| state.awake(vm)).await
        }
        .boxed()
    }
}

impl State {
    /// A guest that is paused answers nobody, nor does one whose VMM is stopped.
    fn awake(&mut self, vm: VmId) -> Result<(), HostError> {
        let awake = self.world.processes.get(&vm).is_some_and(|process| !process.paused)
            && !self.world.stopped.contains(&vm)
            && !self.world.halted.contains(&vm);
        if awake { Ok(()) } else { Err(unreachable(vm)) }
    }

    fn ready(&self, vm: VmId) -> GuestReady {
        GuestReady {
            boot_id: self.boot_id(vm).unwrap_or_default(),
            kernel_release: "0.0.0-sim".to_owned(),
            os_name: "simulated".to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn boot_id(&self, vm: VmId) -> Option<String> {
        self.world.processes.get(&vm).map(|process| format!("sim-boot-{}", process.boot))
    }
}

fn unreachable(vm: VmId) -> HostError {
    HostError::new(Code::GuestUnreachable, "reach guest", vm.short())
}
