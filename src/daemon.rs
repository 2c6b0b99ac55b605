//! The composition root: puts the parts together, brings them up in order and down in reverse.
//!
//! ```text
//! lock → store → ports (host or sim) → actors of the host → recovery → VM actors → listen
//! close the door → sessions → operations → store → end                     (VMs run on)
//! ```
//!
//! Nothing else may know both a room's inside and another's; what must not be done here is work.

mod checks;
mod lock;
mod logging;
mod notify;
mod ports;

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::actors::{
    Adopt, ClockWatchActor, ClockWatchDeps, DnsActor, EventSink, HostLimits, House, ImagesActor,
    ImagesDeps, Inventory, JanitorActor, JanitorDeps, Mint, NetHealth, NetWatchActor, NetWatchDeps,
    OpCtx, SupervisorActor, TapPoolActor, TapPoolConfig, VmDeps,
};
use crate::config::{Config, HostFacts};
use crate::model::{VmState, chain};
use crate::ops::Settings;
use crate::ports::{HostError, NetHost, Ports};
use crate::sim::SimWorld;
use crate::store::{Store, StoreError};
use ports::Raw;

pub use logging::start_logging;

/// What may still run when the daemon is told to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);
/// At what somebody may have done to the host behind our back.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longer than most starts take.
const TAP_REFILL_DELAY: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(
        "bangerd never runs as root; run it as the user who owns the VMs \
         (hint: `banger system install --owner USER` makes units that do)"
    )]
    Root,
    #[error("make directory {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    #[error("store")]
    Store(#[from] StoreError),
    #[error("host")]
    Host(#[from] HostError),
    #[error("listen on {path}")]
    Listen {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--sim-fault")]
    SimFault {
        #[source]
        source: crate::sim::ParseFaultError,
    },
    #[error("{0}")]
    Runtime(&'static str),
}

/// Before anything runs: what defaults derive from.
#[must_use]
pub fn host_facts() -> HostFacts {
    ports::facts()
}

/// Serves until a signal ends it. VMs are not touched by the end of the daemon.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    run_on(config, ports::raw).await
}

/// The same on a simulated host that another daemon may have run on.
pub async fn run_simulated(config: Config, world: Arc<SimWorld>) -> Result<(), DaemonError> {
    run_on(config, |config| Ok(ports::simulated_on(config, &world))).await
}

async fn run_on(
    config: Config,
    raw: impl FnOnce(&Config) -> Result<Raw, DaemonError>,
) -> Result<(), DaemonError> {
    let started = Instant::now();
    let owner_uid = nix::unistd::getuid().as_raw();
    if owner_uid == 0 && config.sim.is_none() {
        return Err(DaemonError::Root);
    }
    let config = Arc::new(config);
    make_dir(&config.state_dir)?;
    make_dir(&config.run_dir)?;
    let _lock = lock::acquire(&config.state_dir)?;
    let store = Store::open(&config.state_dir.join("store"))?;
    store.keep_events(config.limits.events_kept);
    let raw = raw(&config)?;

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mint = Mint::new(Arc::clone(&raw.clock));
    let events = EventSink::new(store.clone(), Arc::clone(&raw.clock));
    let (health, network) = watch::channel(first_bridge(&*raw.net, &mint).await);

    let taps = TapPoolActor::launch(
        TapPoolConfig {
            prefix: config.network.tap_prefix.clone(),
            size: usize::from(config.tap_pool_size),
            refill_after: TAP_REFILL_DELAY,
        },
        store.clone(),
        Arc::clone(&raw.net),
        mint.clone(),
        events.clone(),
    );
    let names = {
        let store = store.clone();
        move || {
            let vms = store.vms().unwrap_or_default().into_iter();
            let running = vms.filter(|vm| vm.state == VmState::Running);
            running.map(|vm| (vm.spec.name, vm.address)).collect::<BTreeMap<_, _>>()
        }
    };
    let dns = DnsActor::launch(raw.names.clone(), events.clone(), names);
    let ports = Ports {
        hypervisor: Arc::clone(&raw.hypervisor),
        process: Arc::clone(&raw.process),
        net: Arc::clone(&raw.net),
        taps: Arc::new(taps.clone()),
        disk: Arc::clone(&raw.disk),
        guest: Arc::clone(&raw.guest),
        images: Arc::clone(&raw.images),
        names: Arc::new(dns.clone()),
        warm: Arc::clone(&raw.warm),
        clock: Arc::clone(&raw.clock),
    };
    crate::actors::sweep(&store, &*raw.images, &*raw.warm, mint.op()).await;
    let images = ImagesActor::launch(ImagesDeps {
        store: store.clone(),
        images: Arc::clone(&raw.images),
        warm: Arc::clone(&raw.warm),
        clock: Arc::clone(&raw.clock),
        events: events.clone(),
        mint: mint.clone(),
        tasks: tasks.clone(),
        cancel: stop.child_token(),
    });
    let deps = Arc::new(VmDeps {
        store: store.clone(),
        ports: ports.clone(),
        settings: Arc::new(Settings {
            boot_limit: config.boot_timeout,
            grace: config.stop_grace,
            ..Settings::new(config.network.subnet, config.network.dns.clone())
        }),
        events: events.clone(),
        mint: mint.clone(),
    });
    let known = crate::actors::recover(&deps).await?;
    let vms = known.len();
    let facts = host_facts();
    let limits = HostLimits {
        memory_mib: if config.sim.is_some() { u64::from(u32::MAX) } else { facts.memory_mib },
        overhead_mib: raw.hypervisor.overhead().mib(),
        cpus: facts.cpus,
        disk_reserve: config.limits.disk_reserve,
        max_vms: config.limits.max_vms,
        parallel_starts: config.limits.parallel_starts,
    };
    let supervisor = SupervisorActor::launch(deps, limits, tasks.clone(), stop.child_token());
    let inventory = Inventory {
        store: store.clone(),
        net: Arc::clone(&raw.net),
        process: Arc::clone(&raw.process),
        disk: Arc::clone(&raw.disk),
        images: Arc::clone(&raw.images),
        warm: Arc::clone(&raw.warm),
    };
    let janitor = JanitorActor::launch(JanitorDeps {
        inventory: inventory.clone(),
        ports: ports.clone(),
        taps: taps.clone(),
        images: images.clone(),
        supervisor: supervisor.clone(),
        events: events.clone(),
        mint: mint.clone(),
        tasks: tasks.clone(),
    });
    let house = House {
        started_unix_ms: raw.clock.unix_ms(),
        checks: checks::checks(Arc::clone(&config), &raw, inventory.clone(), network),
        config: Arc::clone(&config),
        store: store.clone(),
        ports,
        mint: mint.clone(),
        supervisor,
        images,
        taps,
        dns,
        inventory,
        janitor,
        owner_uid,
    };
    let adopting = OpCtx {
        op_id: mint.op(),
        deadline: Instant::now() + SHUTDOWN_LIMIT,
        span: tracing::Span::none(),
    };
    let adopted = house.supervisor.call(adopting, Adopt(known)).await;
    adopted.map_err(|_| DaemonError::Runtime("the supervisor did not take its VMs"))?;

    keep_watch(&house, &raw, &events, health);
    let listener = listen(&config.socket)?;
    let closing = CancellationToken::new();
    let sessions = TaskTracker::new();
    let door = tokio::spawn(crate::actors::serve(
        listener,
        house.clone(),
        sessions.clone(),
        closing.clone(),
    ));
    tracing::info!(
        socket = %config.socket.display(), vms, sim = config.sim.is_some(),
        elapsed_ms = started.elapsed().as_millis(), "bangerd serves"
    );
    notify::serve(&house, &stop).await;
    let why = end_of_service(door).await;
    tracing::info!(why, "bangerd ends; VMs run on");
    notify::stopping();
    closing.cancel();
    let ended = Instant::now();
    sessions.close();
    bounded("sessions", sessions.wait()).await;
    stop.cancel();
    tasks.close();
    bounded("operations", tasks.wait()).await;
    drop(std::fs::remove_file(&config.socket)); // a socket that nobody serves only misleads
    if let Some(names) = &raw.names {
        bounded("dns", async { drop(names.stop().await) }).await;
    }
    drop(house);
    bounded("store", async { drop(store.flush().await) }).await;
    tracing::info!(elapsed_ms = ended.elapsed().as_millis(), "bangerd ended");
    Ok(())
}

async fn bounded(what: &'static str, stage: impl Future<Output = ()>) {
    let started = Instant::now();
    let elapsed_ms = || started.elapsed().as_millis();
    match tokio::time::timeout(SHUTDOWN_LIMIT, stage).await {
        Ok(()) => tracing::debug!(what, elapsed_ms = elapsed_ms(), "stopped"),
        Err(_) => tracing::warn!(what, elapsed_ms = elapsed_ms(), "not stopped in time"),
    }
}

/// A signal, or the door falling shut.
async fn end_of_service(door: tokio::task::JoinHandle<()>) -> &'static str {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return "signals cannot be handled";
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
        _ = door => "the gateway ended",
    }
}

/// Looks from now on at what nobody tells the daemon of.
fn keep_watch(
    house: &House,
    raw: &Raw,
    events: &EventSink,
    health: tokio::sync::watch::Sender<NetHealth>,
) {
    let (supervisor, mint) = (house.supervisor.clone(), house.mint.clone());
    NetWatchActor::launch(NetWatchDeps {
        net: Arc::clone(&raw.net),
        taps: house.taps.clone(),
        supervisor: supervisor.clone(),
        events: events.clone(),
        mint: mint.clone(),
        health,
        bridge: house.config.network.bridge.to_string(),
        every: LOOK_EVERY,
    });
    let (ports, events) = (house.ports.clone(), events.clone());
    ClockWatchActor::launch(ClockWatchDeps { ports, supervisor, events, mint, every: LOOK_EVERY });
}

/// Tried once before anything needs it; the watch of the network goes on from there, so that a helper
/// that comes up later is enough.
async fn first_bridge(net: &dyn NetHost, mint: &Mint) -> NetHealth {
    let Err(error) = net.ensure_bridge(mint.op()).await else { return NetHealth::default() };
    tracing::warn!(error = %chain(&error), "bridge not ready; trying again in the background");
    NetHealth { problem: Some(format!("bridge: {}", chain(&error))), ..NetHealth::default() }
}

fn make_dir(path: &Path) -> Result<(), DaemonError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DaemonError::Directory { path: path.to_owned(), source })
}

/// A socket that is there already is a dead daemon's, unless somebody answers: the lock is the state
/// directory's, and another daemon may have been told the same socket.
fn listen(path: &Path) -> Result<UnixListener, DaemonError> {
    let failed = |source| DaemonError::Listen { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::AddrInUse)));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}
