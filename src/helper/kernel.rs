//! Carries out plans. Owns the order of effects within one request; nothing durable.
//!
//! Requests about the network exclude each other, requests about one VM's process too, so that
//! "is it there, then make it" is one step. VMs do not wait for each other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rustix::fs::OFlags;
use tokio::sync::Mutex;

use super::cgroup::Cgroups;
use super::children::Children;
use super::config::{Config, Vmm, trusted_program};
use super::error::Trouble;
use super::link::{Links, ensure_forwarding, is_forwarding};
use super::nft::Table;
use super::policy::{CheckPlan, JailPlan, Plan, SpawnPlan};
use super::process::{Held, all_pids, boot_id, hold, is_vmm_of, pick};
use super::server::Executor;
use super::snapshot::{self, SnapshotPlan};
use super::spawn::{self, Rights, Start};
use super::{audit, beneath, fsck, jail, loopdev, survey, tap};
use crate::model::{Code, ProcessIdentity, VmId};
use crate::wire::helper::{
    HelperOk, HostReport, NatEntry, NetworkReport, PermitReport, StatusReport, VmmProgram,
    WireExit, WireExitHow, WireProcess,
};

/// How long a killed VMM may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(10);
const REAP_LIMIT: Duration = Duration::from_secs(2);
const SIGKILL: i32 = 9;
/// So much is read for the last line of a log.
const LAST_WORDS: u64 = 1024;

/// In the order of their numbers (linux/capability.h), the ones the helper can need.
const CAPABILITIES: [(u32, &str); 11] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (12, "NET_ADMIN"),
    (13, "NET_RAW"),
    (18, "SYS_CHROOT"),
    (21, "SYS_ADMIN"),
    (27, "MKNOD"),
];

#[derive(Debug)]
pub struct Kernel {
    config: Arc<Config>,
    started: Instant,
    network: Mutex<()>,
    loops: Mutex<()>,
    vms: StdMutex<HashMap<VmId, Arc<Mutex<()>>>>,
    cgroups: Option<Arc<Cgroups>>,
    children: Arc<Children>,
}

impl Executor for Kernel {
    fn execute(&self, plan: Plan) -> BoxFuture<'_, Result<HelperOk, Trouble>> {
        Box::pin(self.run(plan))
    }
}

impl Kernel {
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let cgroups = Cgroups::locate(&config).map(Arc::new);
        Self {
            config,
            started: Instant::now(),
            network: Mutex::default(),
            loops: Mutex::default(),
            vms: StdMutex::default(),
            cgroups,
            children: Children::new(),
        }
    }

    async fn run(&self, plan: Plan) -> Result<HelperOk, Trouble> {
        match plan {
            Plan::Status => self.status().map(HelperOk::Status),
            Plan::EnsureBridge
            | Plan::RemoveBridge
            | Plan::EnsureTap { .. }
            | Plan::RemoveTap { .. }
            | Plan::ListTaps
            | Plan::EnsureNat { .. }
            | Plan::RemoveNat { .. }
            | Plan::ListNat
            | Plan::Survey => {
                let _alone = self.network.lock().await;
                self.network(plan).await
            }
            Plan::Spawn(plan) => {
                let (lock, vm) = (self.lock_of(plan.vm), plan.vm);
                let alone = lock.lock().await;
                let spawned = self.spawn(&plan).await;
                drop(alone);
                self.forget_lock(vm, lock);
                spawned.map(|process| HelperOk::Process(Some(process)))
            }
            Plan::End { vm } => {
                let lock = self.lock_of(vm);
                let alone = lock.lock().await;
                let ended = self.end(vm).await;
                drop(alone);
                self.forget_lock(vm, lock);
                ended.map(HelperOk::Exit)
            }
            Plan::Find { vm } => {
                let process = self.find(vm).map(|held| held.identity()).transpose()?;
                Ok(HelperOk::Process(process.as_ref().map(WireProcess::from)))
            }
            Plan::Signal { vm, process, signal } => {
                self.signal(vm, &process, signal).map(|()| HelperOk::Done)
            }
            Plan::Permits => Ok(HelperOk::Permits(self.permits())),
            Plan::Exit { vm, process } => self.exit(vm, &process).await.map(HelperOk::Exit),
            Plan::AttachLoop { .. } | Plan::DetachLoop { .. } | Plan::ListLoops => {
                let _alone = self.loops.lock().await;
                self.loop_devices(plan)
            }
            Plan::EnsureSnapshot(SnapshotPlan { vm, .. }) | Plan::RemoveSnapshot { vm } => {
                let lock = self.lock_of(vm);
                let alone = lock.lock().await;
                let done = self.snapshot(plan).await;
                drop(alone);
                self.forget_lock(vm, lock);
                done
            }
            Plan::ListSnapshots => self.snapshot(plan).await,
            Plan::SurveyHost { after } => self.survey(after).await.map(HelperOk::Host),
            Plan::Check(plan) => {
                let lock = self.lock_of(plan.vm);
                let alone = lock.lock().await;
                let status = self.check(&plan).await;
                drop(alone);
                self.forget_lock(plan.vm, lock);
                status.map(|status| HelperOk::Checked { status })
            }
        }
    }

    fn status(&self) -> Result<StatusReport, Trouble> {
        let config = &self.config;
        let path = "/proc/self/status";
        let status = std::fs::read_to_string(path);
        let status = status.map_err(|error| Trouble::io("read", path, error))?;
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            owner_uid: config.owner_uid,
            capabilities: capabilities(&status),
            bridge: config.bridge.clone(),
            tap_prefix: config.tap_prefix.clone(),
            table: config.table.clone(),
            subnet: config.subnet.into(),
            vmms: config.vmms.iter().map(program).collect(),
            state_dir: config.state_dir.display().to_string(),
            cgroup: self.cgroups.as_ref().map(|cgroups| cgroups.path().display().to_string()),
        })
    }

    fn permits(&self) -> PermitReport {
        let jails = self.config.jails.as_ref();
        let uids = jails.map(|jails| (*jails.uids.start(), *jails.uids.end()));
        let (first_uid, last_uid) = uids.unwrap_or_default();
        PermitReport {
            vmms: self.config.vmms.iter().map(program).collect(),
            jailer: jails.map(|jails| program(&jails.jailer)),
            first_uid,
            last_uid,
        }
    }

    async fn network(&self, plan: Plan) -> Result<HelperOk, Trouble> {
        let Config { bridge, table, subnet, owner_uid, .. } = &*self.config;
        let table = || Table::open(table, bridge);
        match plan {
            Plan::EnsureBridge => {
                // The fence before the road: rules, then the bridge, then forwarding.
                let links = Links::open()?;
                let survey = links.survey(bridge, *subnet).await?;
                table()?.ensure().await?;
                links.ensure_bridge(bridge, *subnet, survey).await?;
                let forwarding_turned_on = ensure_forwarding()?;
                Ok(HelperOk::Bridge { forwarding_turned_on })
            }
            Plan::RemoveBridge => {
                let ports_left = Links::open()?.remove_bridge(bridge).await?;
                table()?.remove().await?;
                Ok(HelperOk::BridgeRemoved { ports_left })
            }
            Plan::EnsureTap { tap } => {
                tap::ensure(&Links::open()?, bridge, &tap.0, *owner_uid).await?;
                Ok(HelperOk::Done)
            }
            Plan::RemoveTap { tap } => {
                tap::remove(&Links::open()?, &tap.0).await?;
                Ok(HelperOk::Done)
            }
            Plan::ListTaps => {
                let mut taps = Links::open()?.taps(bridge).await?;
                let ours = |name: &String| name.starts_with(&self.config.tap_prefix);
                taps.retain(ours);
                Ok(HelperOk::Taps(taps))
            }
            Plan::EnsureNat { vm, address } => {
                table()?.add(vm, address).await?;
                Ok(HelperOk::Done)
            }
            Plan::RemoveNat { vm, address } => {
                table()?.take(vm, address).await?;
                Ok(HelperOk::Done)
            }
            Plan::ListNat => Ok(HelperOk::Nat(nat_entries(table()?.list().await?))),
            Plan::Survey => {
                let (mut seen, table) = (Links::open()?.look(bridge, *subnet).await?, table()?);
                seen.taps.retain(|tap| tap.name.starts_with(&self.config.tap_prefix));
                Ok(HelperOk::Network(NetworkReport {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    bridge: seen.bridge,
                    forwarding: is_forwarding()?,
                    table: table.is_ours_and_whole().await?,
                    taps: seen.taps,
                    nat: nat_entries(table.list().await.unwrap_or_default()),
                    drops: table.others_that_drop().await?,
                }))
            }
            other => Err(misplaced(&other)),
        }
    }

    /// Waits for devices that are in use, so it must not run where others wait for it.
    async fn snapshot(&self, plan: Plan) -> Result<HelperOk, Trouble> {
        let config = Arc::clone(&self.config);
        let work = move || match plan {
            Plan::EnsureSnapshot(plan) => {
                let device = snapshot::ensure(&config, &plan)?.display().to_string();
                Ok(HelperOk::Loop { device })
            }
            Plan::RemoveSnapshot { vm } => {
                snapshot::remove(&config, vm)?;
                Ok(HelperOk::Done)
            }
            Plan::ListSnapshots => {
                let vms = snapshot::list(&config)?.into_iter().map(|vm| vm.0);
                Ok(HelperOk::Snapshots(vms.collect()))
            }
            other => Err(misplaced(&other)),
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| {
            Err(Trouble::new(Code::Internal, "change", "root disks").because(died))
        })
    }

    /// Reads all of `/proc`, so it must not run where others wait for it.
    async fn survey(&self, after: Option<VmId>) -> Result<HostReport, Trouble> {
        let (config, cgroups) = (Arc::clone(&self.config), self.cgroups.clone());
        let work = move || survey::look(&config, cgroups.as_deref(), after);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|died| Err(Trouble::new(Code::Internal, "survey", "VMs").because(died)))
    }

    async fn check(&self, plan: &CheckPlan) -> Result<i32, Trouble> {
        if let Some(vmm) = self.find(plan.vm) {
            let why = format!("its VMM runs, pid {}", vmm.pid);
            let object = plan.path.display().to_string();
            return Err(Trouble::new(Code::Conflict, "check", object).because(why));
        }
        fsck::check(&self.config, plan).await
    }

    fn loop_devices(&self, plan: Plan) -> Result<HelperOk, Trouble> {
        match plan {
            Plan::AttachLoop { path, read_only } => {
                let device = loopdev::attach(&self.config, &path, read_only)?;
                Ok(HelperOk::Loop { device })
            }
            Plan::DetachLoop { path } => {
                loopdev::detach(&self.config, &path)?;
                Ok(HelperOk::Done)
            }
            Plan::ListLoops => loopdev::list(&self.config).map(HelperOk::Loops),
            other => Err(misplaced(&other)),
        }
    }

    fn lock_of(&self, vm: VmId) -> Arc<Mutex<()>> {
        let mut locks = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(vm).or_default())
    }

    /// Keeps the table as small as the number of requests under way.
    fn forget_lock(&self, vm: VmId, lock: Arc<Mutex<()>>) {
        let mut locks = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's and this one: nobody else waits, and nobody can start to meanwhile.
        if Arc::strong_count(&lock) == 2 {
            locks.remove(&vm);
        }
    }

    /// By cgroup, else by command line; either way the process itself is looked at.
    fn find(&self, vm: VmId) -> Option<Held> {
        let in_cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.pids(vm)).unwrap_or_default();
        pick(&self.config, in_cgroup, vm).or_else(|| pick(&self.config, all_pids(), vm))
    }

    async fn spawn(&self, plan: &SpawnPlan) -> Result<WireProcess, Trouble> {
        if let Some(held) = self.find(plan.vm) {
            return Ok(WireProcess::from(&held.identity()?));
        }
        let program = self.config.vmm(&plan.program).map_err(|why| {
            let object = plan.program.display().to_string();
            let code =
                if Path::new(&plan.program).exists() { Code::Denied } else { Code::VmmMissing };
            Trouble::new(code, "start", object).because(why)
        })?;
        let mut join = None;
        if let Some(cgroups) = &self.cgroups {
            // What an interrupted start or end left there must not run beside the new VMM.
            if cgroups.exists(plan.vm) {
                cgroups.clear(plan.vm, END_LIMIT).await?;
            }
            join = Some(cgroups.ensure(plan.vm, plan.limits.as_ref())?);
        }
        let spawned = match &plan.jail {
            Some(jail) => self.spawn_jailed(plan, jail, join).await,
            None => {
                let start = Start {
                    vm: plan.vm,
                    program: &program.canonical,
                    args: &plan.args,
                    log: &plan.log,
                    rights: Rights::Owner,
                    stdin: Stdio::null(),
                    cgroup: join,
                };
                spawn::spawn(&self.config, start)
            }
        };
        match spawned {
            Ok(child) => self.adopt(plan, child),
            Err(error) => {
                if let Some(cgroups) = &self.cgroups {
                    cgroups.clear(plan.vm, END_LIMIT).await?;
                }
                Err(error)
            }
        }
    }

    async fn spawn_jailed(
        &self,
        plan: &SpawnPlan,
        jail: &JailPlan,
        cgroup: Option<File>,
    ) -> Result<Child, Trouble> {
        let jails = self.config.safe_jails();
        let jails = jails.map_err(|why| {
            Trouble::new(Code::Denied, "build the jail of", plan.vm.to_string()).because(why)
        })?;
        let network = self.network.lock().await;
        tap::give_to(&Links::open()?, &jail.tap.0, jail.uid).await?;
        drop(network);
        jail::spawn(&self.config, jails, plan, jail, cgroup).await
    }

    fn adopt(&self, plan: &SpawnPlan, mut child: Child) -> Result<WireProcess, Trouble> {
        let (vm, pid) = (plan.vm, child.id());
        let Some(held) = hold(pid) else {
            // Ended between its start and now.
            let status =
                child.wait().map_err(|error| Trouble::io("wait for", pid.to_string(), error))?;
            let last = last_words(&self.config, &plan.log);
            let why = format!("it ended at once: {status}{last}");
            return Err(Trouble::new(Code::GuestDied, "start VMM of", vm.to_string()).because(why));
        };
        let identity = held.identity()?;
        self.children.adopt(vm, child, held);
        Ok(WireProcess::from(&identity))
    }

    /// The process of this identity, if it still runs and is this VM's.
    fn verified(&self, vm: VmId, process: &ProcessIdentity) -> Result<Option<Held>, Trouble> {
        if process.host_boot_id != boot_id()? {
            return Ok(None);
        }
        let held = hold(process.pid).filter(|held| held.start_ticks == process.start_ticks);
        let Some(held) = held else { return Ok(None) };
        if is_vmm_of(&self.config, held.pid, vm) {
            return Ok(Some(held));
        }
        let why = format!("process {} is not VM {vm}'s", held.pid);
        Err(Trouble::new(Code::Denied, "signal", "process").because(why))
    }

    fn signal(&self, vm: VmId, process: &ProcessIdentity, signal: i32) -> Result<(), Trouble> {
        match self.verified(vm, process)? {
            Some(held) => held.signal(signal),
            None => Ok(()),
        }
    }

    async fn exit(&self, vm: VmId, process: &ProcessIdentity) -> Result<Option<WireExit>, Trouble> {
        let key = (process.pid, process.start_ticks);
        if process.host_boot_id != boot_id()? {
            return Ok(None);
        }
        let runs = hold(process.pid).is_some_and(|held| held.start_ticks == process.start_ticks);
        if runs {
            return Ok(self.children.exit_of(vm, key));
        }
        Ok(self.children.exit_soon(vm, key, REAP_LIMIT).await)
    }

    async fn end(&self, vm: VmId) -> Result<Option<WireExit>, Trouble> {
        let mut key = None;
        // More than one only where there are no cgroups to keep a second start from happening.
        while let Some(held) = self.find(vm) {
            key = Some((held.pid, held.start_ticks));
            held.signal(SIGKILL)?;
            if !held.ended(END_LIMIT).await? {
                let why = format!("it did not end within {END_LIMIT:?} of SIGKILL");
                let object = vm.to_string();
                return Err(Trouble::new(Code::Deadline, "end VMM of", object).because(why));
            }
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.clear(vm, END_LIMIT).await?;
        }
        let Some(key) = key else { return Ok(self.children.last_exit(vm)) };
        let exit = self.children.exit_soon(vm, key, REAP_LIMIT).await;
        let unknown = || WireExit { unix_ms: audit::unix_ms(), how: WireExitHow::Unknown };
        Ok(Some(exit.unwrap_or_else(unknown)))
    }
}

/// The last line that a VMM wrote, for whoever hears of its end.
fn last_words(config: &Config, log: &Path) -> String {
    let Ok(mut file) = beneath::open(&config.state_dir, log, OFlags::RDONLY) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = vec![];
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))
        .and_then(|_| file.take(LAST_WORDS).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    match text.trim_end().lines().last() {
        Some(line) if read.is_ok() => format!(": {line}"),
        _ => String::new(),
    }
}

fn program(vmm: &Vmm) -> VmmProgram {
    VmmProgram {
        path: vmm.canonical.display().to_string(),
        refused: trusted_program(&vmm.canonical).err(),
    }
}

fn nat_entries(listed: Vec<(Option<VmId>, Ipv4Addr)>) -> Vec<NatEntry> {
    let entry = |(vm, address): (Option<VmId>, Ipv4Addr)| NatEntry {
        vm: vm.map(|vm| vm.0),
        address: address.octets(),
    };
    listed.into_iter().map(entry).collect()
}

fn misplaced(plan: &Plan) -> Trouble {
    Trouble::new(Code::Internal, "carry out", format!("{plan:?}"))
}

fn capabilities(status: &str) -> Vec<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let held = CAPABILITIES.iter().filter(|(bit, _)| mask & (1 << bit) != 0);
    held.map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_mask() {
        assert_eq!(capabilities("CapEff:\t0000000000001021\n"), ["CHOWN", "KILL", "NET_ADMIN"]);
        assert!(capabilities("").is_empty());
    }

    #[tokio::test]
    async fn status_says_what_is_configured() {
        let kernel = Kernel::new(Arc::new(crate::helper::config::tests::config()));
        let HelperOk::Status(status) = kernel.execute(Plan::Status).await.unwrap() else {
            panic!("not a status")
        };
        assert_eq!(status.bridge, "br-fc");
        assert!(status.vmms[0].refused.is_some());
    }

    #[tokio::test]
    async fn a_process_of_another_is_not_signalled() {
        let kernel = Kernel::new(Arc::new(crate::helper::config::tests::config()));
        let own = hold(std::process::id()).unwrap().identity().unwrap();
        let vm = VmId([1; 16]);
        let refused = kernel.signal(vm, &own, 15).unwrap_err();
        assert_eq!(refused.code, Code::Denied);
        // Another start time is another process: gone already, nothing done.
        kernel.signal(vm, &ProcessIdentity { start_ticks: 1, ..own.clone() }, 15).unwrap();
        let boot = ProcessIdentity { host_boot_id: "another".into(), ..own };
        kernel.signal(vm, &boot, 15).unwrap();
    }

    #[test]
    fn locks_are_forgotten() {
        let kernel = Kernel::new(Arc::new(crate::helper::config::tests::config()));
        let vm = VmId([1; 16]);
        let (first, second) = (kernel.lock_of(vm), kernel.lock_of(vm));
        kernel.forget_lock(vm, first);
        assert_eq!(kernel.vms.lock().unwrap().len(), 1, "somebody still waits");
        kernel.forget_lock(vm, second);
        assert!(kernel.vms.lock().unwrap().is_empty());
    }
}
