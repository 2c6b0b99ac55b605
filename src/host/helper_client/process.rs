//! The process port: the helper starts, signals and ends; the kernel itself tells who lives and
//! when somebody ends.

use std::path::Path;

use super::client::{HelperClient, unexpected};
use super::survey::survey;
use crate::host::clock::SystemClock;
use crate::host::files::blocking;
use crate::host::process;
use crate::model::{
    Code, ExitReport, HostSeen, OpId, ProcessIdentity, ProcessUsage, ResourceKind, VmId,
};
use crate::ports::{
    Clock, HostError, Jail, JailAccess, JailFile, PortFuture, ProcessHost, SpawnRequest, VmmCommand,
};
use crate::wire::helper::{
    HelperBody, HelperOk, StartVmm, WireAccess, WireExit, WireExitHow, WireJail, WireJailFile,
    WireLimits,
};

#[derive(Clone, Debug)]
pub struct HelperProcess {
    client: HelperClient,
}

impl HelperProcess {
    #[must_use]
    pub fn new(client: HelperClient) -> Self {
        Self { client }
    }
}

impl ProcessHost for HelperProcess {
    fn host_boot_id(&self) -> Result<String, HostError> {
        process::boot_id().map_err(|error| HostError::io("read", "the host's boot id", error))
    }

    fn ensure_spawned<'a>(
        &'a self,
        op: OpId,
        request: &'a SpawnRequest,
    ) -> PortFuture<'a, ProcessIdentity> {
        Box::pin(async move {
            let SpawnRequest { vm, command, log } = request;
            let VmmCommand { program, args, limits, jail, .. } = command;
            let body = HelperBody::StartVmm(StartVmm {
                vm: vm.0,
                program: text(program)?,
                args: args.clone(),
                log: text(log)?,
                limits: WireLimits {
                    memory_bytes: limits.memory.bytes(),
                    cpus: limits.cpus,
                    tasks: limits.tasks,
                },
                jail: jail.as_ref().map(wire_jail).transpose()?,
            });
            match self.client.call(op, body).await? {
                HelperOk::Process(Some(process)) => Ok(process.into()),
                other => Err(unexpected("start-vmm", &other)),
            }
        })
    }

    fn find(&self, op: OpId, vm: VmId) -> PortFuture<'_, Option<ProcessIdentity>> {
        Box::pin(async move {
            match self.client.call(op, HelperBody::FindVmm { vm: vm.0 }).await? {
                HelperOk::Process(process) => Ok(process.map(ProcessIdentity::from)),
                other => Err(unexpected("find-vmm", &other)),
            }
        })
    }

    fn survey(&self, op: OpId) -> PortFuture<'_, HostSeen> {
        Box::pin(async move {
            let mut seen = survey(&self.client, op).await?;
            let others = |kind| matches!(kind, ResourceKind::Device | ResourceKind::Loop);
            seen.things.retain(|thing| !others(thing.kind));
            Ok(seen)
        })
    }

    fn is_alive(&self, process: &ProcessIdentity) -> bool {
        process::is_alive(process)
    }

    fn is_stopped(&self, process: &ProcessIdentity) -> bool {
        process::is_stopped(process)
    }

    fn signal<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        process: &'a ProcessIdentity,
        signal: i32,
    ) -> PortFuture<'a, ()> {
        Box::pin(async move {
            let body = HelperBody::SignalVmm { vm: vm.0, process: process.into(), signal };
            match self.client.call(op, body).await? {
                HelperOk::Done => Ok(()),
                other => Err(unexpected("signal-vmm", &other)),
            }
        })
    }

    fn ensure_gone(&self, op: OpId, vm: VmId) -> PortFuture<'_, Option<ExitReport>> {
        Box::pin(async move {
            match self.client.call(op, HelperBody::EndVmm { vm: vm.0 }).await? {
                HelperOk::Exit(exit) => Ok(exit.map(report)),
                other => Err(unexpected("end-vmm", &other)),
            }
        })
    }

    fn usage<'a>(
        &'a self,
        vm: VmId,
        process: &'a ProcessIdentity,
    ) -> PortFuture<'a, Option<ProcessUsage>> {
        let process = process.clone();
        Box::pin(blocking("measure process", move || {
            process::usage(vm, &process)
                .map_err(|error| HostError::io("measure process of", vm.to_string(), error))
        }))
    }

    fn exited<'a>(&'a self, vm: VmId, process: &'a ProcessIdentity) -> PortFuture<'a, ExitReport> {
        Box::pin(async move {
            process::ended(process)
                .await
                .map_err(|error| HostError::io("watch process of", vm.to_string(), error))?;
            let unix_ms = SystemClock.unix_ms();
            // Nobody's operation: born here, and told apart in the logs by the VM's own bytes.
            let mut random = [0; 10];
            random.copy_from_slice(&vm.0[..10]);
            let op = OpId::from_parts(unix_ms, random);
            let body = HelperBody::ExitStatus { vm: vm.0, process: process.into() };
            match self.client.call(op, body).await {
                Ok(HelperOk::Exit(Some(exit))) => Ok(report(exit)),
                Ok(HelperOk::Exit(None)) => Ok(unknown(unix_ms)),
                Ok(other) => Err(unexpected("exit-status", &other)),
                // That it has ended is certain, and must be told, helper or not.
                Err(error) => {
                    tracing::warn!(vm_id = %vm, error = %crate::model::chain(&error), "exit status unknown");
                    Ok(unknown(unix_ms))
                }
            }
        })
    }
}

fn unknown(unix_ms: u64) -> ExitReport {
    report(WireExit { unix_ms, how: WireExitHow::Unknown })
}

fn report(exit: WireExit) -> ExitReport {
    let how = match exit.how {
        WireExitHow::Unknown => "unknown".to_owned(),
        WireExitHow::Status(code) => format!("exit status {code}"),
        WireExitHow::Signal(number) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
    };
    ExitReport { unix_ms: exit.unix_ms, how }
}

fn wire_jail(jail: &Jail) -> Result<WireJail, HostError> {
    let file = |file: &JailFile| {
        Ok(WireJailFile {
            path: text(&file.path)?,
            name: file.name.clone(),
            access: match file.access {
                JailAccess::Shared => WireAccess::Shared,
                JailAccess::Private => WireAccess::Private,
                JailAccess::Writable => WireAccess::Writable,
            },
        })
    };
    Ok(WireJail {
        tap: jail.tap.0.clone(),
        sockets: text(&jail.sockets)?,
        files: jail.files.iter().map(file).collect::<Result<_, HostError>>()?,
    })
}

/// Paths cross the socket as text.
fn text(path: &Path) -> Result<String, HostError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let object = path.display().to_string();
        HostError::new(Code::Invalid, "name to the helper", object).because("it is not UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        let told = |how| report(WireExit { unix_ms: 5, how }).how;
        assert_eq!(told(WireExitHow::Status(1)), "exit status 1");
        assert_eq!(told(WireExitHow::Signal(9)), "killed by SIGKILL");
        assert_eq!(told(WireExitHow::Signal(63)), "killed by signal 63");
        assert_eq!(told(WireExitHow::Unknown), "unknown");
    }
}
