//! The adapter itself: what [`super`] says, put together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::client::{ApiError, Call, Client, failed};
use super::machine::{arguments, jail, requests};
use super::types::{Action, ActionType, InstanceInfo, InstanceState, VmChange, VmChangeTo};
use super::version::{FIRECRACKER, Fit, JAILER, Version};
use super::{memory, metrics};
use crate::host::files::blocking;
use crate::host::vmm::accel::Accelerator;
use crate::host::vmm::adapter::{Adapter, limits};
use crate::host::vmm::permit::{self, Permits};
use crate::host::vmm::socket::connect_when_there;
use crate::model::{Code, DeviceCounters, OpId, SavedBy, Size, VmId, VmmKind, chain};
use crate::ports::{BootPlan, HostError, LogKind, PortFuture, VmPaths, VmmCommand, VmmDescription};

/// Firecracker itself, with room for its devices' queues.
const OWN_MIB: u32 = 16;
/// Who asks for metrics would rather have old ones than wait.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// Besides its vCPUs': its own, its API's, and room for those of a later version.
const THREADS: u32 = 16;

#[derive(Debug)]
pub struct Firecracker {
    configured: Option<PathBuf>,
    permits: Permits,
    version: OnceCell<Version>,
    /// Of the jailer at that path.
    jailer: OnceCell<(PathBuf, Version)>,
}

impl Firecracker {
    #[must_use]
    pub(in crate::host::vmm) fn new(configured: Option<PathBuf>, permits: Permits) -> Self {
        Self { configured, permits, version: OnceCell::new(), jailer: OnceCell::new() }
    }

    /// Whether there is a binary, of whatever version.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.binary().is_ok()
    }

    fn binary(&self) -> Result<PathBuf, HostError> {
        FIRECRACKER.find(self.configured.as_deref())
    }

    /// Both come from one release and are made for each other.
    async fn misfit(&self, jailer: &Path, own: &Version) -> Result<Option<String>, HostError> {
        let ask = || async {
            let version = JAILER.version(jailer, Version::parse_jailer).await?;
            Ok::<_, HostError>((jailer.to_owned(), version))
        };
        let version = match self.jailer.get_or_try_init(ask).await? {
            (path, version) if path == jailer => version.clone(),
            // The helper was told another one since.
            _ => ask().await?.1,
        };
        let differ = version != *own;
        Ok(differ.then(|| format!("its jailer {} is version {version}", jailer.display())))
    }
}

impl Adapter for Firecracker {
    fn describe(&self) -> PortFuture<'_, VmmDescription> {
        Box::pin(async move {
            let binary = self.binary()?;
            let asked = || FIRECRACKER.version(&binary, Version::parse);
            let version = self.version.get_or_try_init(asked).await?;
            let refused = |code| HostError::new(code, "use VMM", "firecracker");
            let mut warning = match version.fits() {
                Fit::Good => None,
                Fit::Untried(what) => Some(what),
                Fit::TooOld(why) => {
                    return Err(refused(Code::VmmMissing).because(why).hint(FIRECRACKER.hint));
                }
            };
            let why = match Accelerator::probe()? {
                (Accelerator::Kvm, why) => why,
                (Accelerator::Tcg, why) => {
                    return Err(refused(Code::Refused)
                        .because(format!("it needs KVM: {why}"))
                        .hint("choose qemu, or auto, which takes what this host has"));
                }
            };
            let permits = self.permits.ask().await?;
            let jailer = permit::jailer(&permits, &binary)?;
            if let Some(misfit) = self.misfit(jailer, version).await? {
                warning.get_or_insert(misfit);
            }
            let (kind, version) = (VmmKind::Firecracker, version.to_string());
            Ok(VmmDescription { kind, version, accelerator: "kvm", why, warning })
        })
    }

    fn command<'a>(&'a self, plan: &'a BootPlan) -> PortFuture<'a, VmmCommand> {
        Box::pin(async move {
            // What could be refused before anything runs is.
            requests(plan)?;
            // The guest's serial line is its output, in append mode and so cut as any log.
            let prints = if plan.console { LogKind::Serial } else { LogKind::Vmm };
            let limits = limits(plan, self.overhead(), THREADS);
            let (program, args) = (self.binary()?, arguments(plan)?);
            // The helper knows it by what it is, not by what leads to it.
            let program = program.canonicalize().unwrap_or(program);
            Ok(VmmCommand { program, args, prints, limits, jail: Some(jail(plan)) })
        })
    }

    fn boot<'a>(&'a self, op: OpId, plan: &'a BootPlan) -> PortFuture<'a, ()> {
        Box::pin(async move {
            match plan.resume {
                true => memory::load(op, plan).await,
                false => boot(op, plan).await,
            }
        })
    }

    fn power_button<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(power_button(op, paths))
    }

    fn pause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(change(op, "pause the guest at", paths, VmChangeTo::Paused))
    }

    fn unpause<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, ()> {
        Box::pin(change(op, "let the guest go on at", paths, VmChangeTo::Resumed))
    }

    fn counters<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
    ) -> PortFuture<'a, Option<DeviceCounters>> {
        Box::pin(async move {
            // What it wrote last is a minute old at most, and better than nothing.
            if let Err(error) = flush(paths).await {
                tracing::debug!(op_id = %op, error = %chain(&error), "metrics not flushed");
            }
            let paths = paths.clone();
            blocking("read metrics", move || {
                metrics::read(&paths).map_err(|error| {
                    let metrics = paths.firecracker_metrics();
                    HostError::io("read metrics", metrics.display().to_string(), error)
                })
            })
            .await
        })
    }

    fn save<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, SavedBy> {
        Box::pin(memory::save(op, paths))
    }

    fn overhead(&self) -> Size {
        Size::from_mib(OWN_MIB)
    }
}

/// Configures and starts what is not started; asked again, it changes nothing.
async fn boot(op: OpId, plan: &BootPlan) -> Result<(), HostError> {
    let socket = plan.paths.firecracker_socket();
    let mut api = open(connect_when_there(&socket).await?, &socket).await?;
    match state(&mut api, &socket, plan.vm).await? {
        InstanceState::Running => return Ok(()),
        InstanceState::NotStarted => {}
        InstanceState::Paused => return Err(not_running(&socket, "it is paused")),
    }
    for call in requests(plan)? {
        tell(&mut api, &socket, &call).await?;
    }
    match state(&mut api, &socket, plan.vm).await? {
        InstanceState::Running => {
            tracing::debug!(op_id = %op, socket = %socket.display(), "the guest runs");
            Ok(())
        }
        other => Err(not_running(&socket, &format!("{other:?} after its start"))),
    }
}

/// The kernel takes it for Ctrl-Alt-Del, and whoever is its PID 1 for a wish to reboot.
async fn power_button(op: OpId, paths: &VmPaths) -> Result<(), HostError> {
    let what = "press the power button at";
    let socket = paths.firecracker_socket();
    let object = || socket.display().to_string();
    if !cfg!(target_arch = "x86_64") {
        let why = "Firecracker has no power button on this architecture";
        return Err(HostError::new(Code::Refused, what, object()).because(why));
    }
    let call = Call::put("/actions", &Action { action_type: ActionType::SendCtrlAltDel });
    once(op, what, &socket, call).await
}

/// Asked for what is so already, Firecracker changes nothing.
async fn change(
    op: OpId,
    what: &'static str,
    paths: &VmPaths,
    state: VmChangeTo,
) -> Result<(), HostError> {
    once(op, what, &paths.firecracker_socket(), Call::patch("/vm", &VmChange { state })).await
}

/// One request to a Firecracker that is there.
async fn once(
    op: OpId,
    what: &'static str,
    socket: &Path,
    call: Result<Call, serde_json::Error>,
) -> Result<(), HostError> {
    let object = || socket.display().to_string();
    let call =
        call.map_err(|error| HostError::new(Code::Internal, what, object()).because(error))?;
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| HostError::io(what, object(), error))?;
    let mut api = open(stream, socket).await?;
    tell(&mut api, socket, &call).await?;
    tracing::debug!(op_id = %op, socket = %socket.display(), path = call.path, "told");
    Ok(())
}

/// Has it write down what it has counted since it last did.
async fn flush(paths: &VmPaths) -> Result<(), HostError> {
    let what = "flush the metrics at";
    let socket = paths.firecracker_socket();
    let object = || socket.display().to_string();
    let flushed = async {
        let stream = UnixStream::connect(&socket).await;
        let stream = stream.map_err(|error| HostError::io(what, object(), error))?;
        let mut api = open(stream, &socket).await?;
        let call = Call::put("/actions", &Action { action_type: ActionType::FlushMetrics });
        let call =
            call.map_err(|error| HostError::new(Code::Internal, what, object()).because(error))?;
        tell(&mut api, &socket, &call).await
    };
    match timeout(FLUSH_LIMIT, flushed).await {
        Ok(flushed) => flushed,
        Err(_) => Err(HostError::new(Code::Deadline, what, object()).because("no answer")),
    }
}

pub(super) async fn open(stream: UnixStream, socket: &Path) -> Result<Client, HostError> {
    Client::open(stream).await.map_err(|error| failed("speak to", "Firecracker", socket, error))
}

/// Of this VM and no other: what answers there must be what was started.
pub(super) async fn state(
    api: &mut Client,
    socket: &Path,
    vm: VmId,
) -> Result<InstanceState, HostError> {
    let asked: Result<InstanceInfo, ApiError> = api.get("/").await;
    let info = asked.map_err(|error| failed("ask the state of", "Firecracker", socket, error))?;
    if info.id != vm.to_string() {
        let what = format!("Firecracker at {}", socket.display());
        return Err(HostError::new(Code::Host, "ask the state of", what)
            .because(format!("it runs another VM, {}", info.id)));
    }
    Ok(info.state)
}

async fn tell(api: &mut Client, socket: &Path, call: &Call) -> Result<(), HostError> {
    let told = api.call(call).await;
    told.map(drop).map_err(|error| failed(call.method.verb(), &call.path, socket, error))
}

fn not_running(socket: &Path, why: &str) -> HostError {
    HostError::new(Code::Host, "boot guest by Firecracker at", socket.display().to_string())
        .because(format!("the guest does not run: {why}"))
}

#[cfg(test)]
#[path = "adapter_tests.rs"]
mod tests;
