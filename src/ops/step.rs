//! One thing done to the host, next to the way it is taken back.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Observed;
use crate::model::{
    Code, EventKind, Failure, ImageUse, KernelFeatures, OpId, ResourceKind, Subnet, VmRecord,
};
use crate::ports::{HostError, Ports};

/// What steps take from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub subnet: Subnet,
    /// Name servers that guests are told of.
    pub dns: Vec<Ipv4Addr>,
    /// For a step that names no other.
    pub step_limit: Duration,
    /// From the VMM's start until the agent serves.
    pub boot_limit: Duration,
    /// What a guest gets to shut down by itself.
    pub grace: Duration,
    /// What it gets after the power button was pressed.
    pub power_wait: Duration,
    /// Between two tries of the same step or undo.
    pub retry_pause: Duration,
    /// How much of the console goes into the error of a failed boot.
    pub console_lines: usize,
}

impl Settings {
    #[must_use]
    pub fn new(subnet: Subnet, dns: Vec<Ipv4Addr>) -> Self {
        Self {
            subnet,
            dns,
            step_limit: Duration::from_secs(30),
            boot_limit: Duration::from_secs(120),
            grace: Duration::from_secs(20),
            power_wait: Duration::from_secs(2),
            retry_pause: Duration::from_millis(200),
            console_lines: 20,
        }
    }
}

/// Told of every step as it happens; must not block.
pub type Watcher = Arc<dyn Fn(EventKind) + Send + Sync>;

/// What a step may reach: ports and the cancel signal. Never the store, never an actor.
#[derive(Clone)]
pub struct StepCx {
    pub op: OpId,
    /// As it was when the operation began.
    pub vm: Arc<VmRecord>,
    /// What its image says of how it is run, if it does.
    pub image: Option<Arc<ImageUse>>,
    /// Which options its kernel has.
    pub kernel: Arc<KernelFeatures>,
    pub ports: Ports,
    pub settings: Arc<Settings>,
    pub cancel: CancellationToken,
    pub observed: Observed,
    pub watcher: Watcher,
}

impl StepCx {
    /// Not cancellable and watched by nobody, until the public fields say otherwise.
    #[must_use]
    pub fn new(op: OpId, vm: VmRecord, ports: Ports, settings: Arc<Settings>) -> Self {
        Self {
            op,
            vm: Arc::new(vm),
            image: None,
            kernel: Arc::default(),
            ports,
            settings,
            cancel: CancellationToken::new(),
            observed: Observed::default(),
            watcher: Arc::new(|_| {}),
        }
    }
}

impl std::fmt::Debug for StepCx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepCx")
            .field("op", &self.op)
            .field("vm", &self.vm.id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("not done within {0:?}")]
    TimedOut(Duration),
    #[error("cancelled")]
    Cancelled,
    #[error("the step panicked: {0}")]
    Panicked(String),
    #[error("an earlier step left no {0}")]
    Missing(&'static str),
}

impl From<&StepError> for Failure {
    fn from(error: &StepError) -> Self {
        let code = match error {
            StepError::Host(error) => return error.into(),
            StepError::TimedOut(_) => Code::Deadline,
            StepError::Cancelled => Code::Cancelled,
            StepError::Panicked(_) | StepError::Missing(_) => Code::Internal,
        };
        Self::from_error(code, error)
    }
}

/// Both halves are idempotent; `undo` must accept that nothing, or half, was done, and ignores
/// the cancel signal. Either future may be dropped when its time is up.
pub trait Step: Send + Sync + std::fmt::Debug {
    /// Stable: it is in the journal. Unique within a plan.
    fn name(&self) -> &'static str;

    fn limit(&self, settings: &Settings) -> Duration {
        settings.step_limit
    }

    /// Whether a cancel ends the step while it runs, and not only before the next one.
    fn interruptible(&self) -> bool {
        false
    }

    /// Whether `run` may leave something on the host; `false` for what only looks or waits.
    fn has_effect(&self) -> bool {
        true
    }

    /// What of the host the VM may hold once `run` has begun: in the ledger before that, and struck when
    /// it is undone.
    fn makes(&self, _cx: &StepCx) -> Vec<ResourceKind> {
        vec![]
    }

    /// What it does not hold any more once `run` has succeeded.
    fn frees(&self) -> &'static [ResourceKind] {
        &[]
    }

    fn run<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>>;

    /// Takes from the output what [`Observed`] holds; called after `run`, and in recovery.
    fn recall(&self, _cx: &StepCx, _output: &str) {}

    fn undo<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>>;
}

/// The undo of a step that needs none; `why` is for the reader.
pub(super) fn no_undo<'a>(_why: &'static str) -> BoxFuture<'a, Result<(), StepError>> {
    std::future::ready(Ok(())).boxed()
}
