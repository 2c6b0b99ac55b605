//! What a VM actor is asked, and what it is told.

use std::time::Duration;

use tokio::sync::watch;

use crate::actors::envelope::{Command, Lane};
use crate::model::{
    Code, ExitReport, Failure, HealthChange, HealthRun, Incarnation, OpId, OpKind, OpRecord,
    ResourceKind, RestartPolicy, Size, Verb, VmEvent, VmRecord, VmSpec, VmState, VmView, Wanted,
    step,
};

/// An operation on one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpRequest {
    /// The VM is reserved already; its disks are made and, with `start`, it boots.
    Create {
        start: bool,
    },
    Start,
    Stop {
        grace: Duration,
    },
    Kill {
        signal: i32,
    },
    Restart {
        grace: Duration,
    },
    Delete,
    Set(Changes),
    /// Born in the daemon after a crash of the VMM.
    CleanUp,
    Suspend,
    Resume,
    /// From its disks, whatever was saved of its memory.
    StartCold,
    /// After a repair of its disks.
    StartRepaired,
    /// Asked by the janitor: a thing goes that the VM does not hold, or a row of a thing that is gone.
    Collect(ResourceKind),
    /// Out of an error: what is left of it goes, its disks stay.
    Recover,
}

impl OpRequest {
    #[must_use]
    pub fn kind(&self) -> OpKind {
        match self {
            Self::Create { .. } => OpKind::CreateVm,
            Self::Start | Self::StartCold | Self::StartRepaired => OpKind::StartVm,
            Self::Stop { .. } => OpKind::StopVm,
            Self::Kill { .. } => OpKind::KillVm,
            Self::Restart { .. } => OpKind::RestartVm,
            Self::Delete => OpKind::DeleteVm,
            Self::CleanUp => OpKind::CleanUpVm,
            Self::Suspend => OpKind::SuspendVm,
            Self::Resume => OpKind::ResumeVm,
            Self::Set(_) => OpKind::SetVm,
            Self::Collect(_) => OpKind::CollectVm,
            Self::Recover => OpKind::RecoverVm,
        }
    }

    /// What the lifecycle is asked; creation and cleaning up are not a user's verbs.
    pub(super) fn verb(&self) -> Option<Verb> {
        match self {
            Self::Create { .. }
            | Self::CleanUp
            | Self::Set(_)
            | Self::Collect(_)
            | Self::Recover => None,
            Self::Start | Self::StartCold => Some(Verb::Start),
            Self::StartRepaired => Some(Verb::Repair),
            Self::Stop { .. } => Some(Verb::Stop),
            Self::Kill { .. } => Some(Verb::Kill),
            Self::Restart { .. } => Some(Verb::Restart),
            Self::Delete => Some(Verb::Delete),
            Self::Suspend => Some(Verb::Suspend),
            Self::Resume => Some(Verb::Resume),
        }
    }

    /// What is meant of a VM in this state: the start of a suspended one continues it.
    pub(super) fn of(self, state: VmState) -> Self {
        match (self, state) {
            (Self::Start, VmState::Suspended) => Self::Resume,
            (other, _) => other,
        }
    }

    /// Whether the VM runs when it is done, which takes memory.
    pub(in crate::actors) fn brings_up(&self) -> bool {
        matches!(
            self,
            Self::Start
                | Self::StartCold
                | Self::StartRepaired
                | Self::Restart { .. }
                | Self::Resume
        )
    }

    /// Whether it ends, or begins anew, what was watched of a run.
    pub(super) fn changes_run(&self) -> bool {
        !matches!(self, Self::Create { .. } | Self::Start | Self::Set(_) | Self::Collect(_))
    }

    /// What whoever asks for it wants from then on; nothing if it says nothing of that.
    pub(in crate::actors) fn wish(&self) -> Option<Wanted> {
        match self {
            Self::Create { start: true } => Some(Wanted::Running),
            Self::Create { start: false } | Self::Suspend => Some(Wanted::Stopped),
            Self::CleanUp | Self::Set(_) | Self::Collect(_) => None,
            _ if self.brings_up() => Some(Wanted::Running),
            _ => Some(Wanted::Stopped),
        }
    }

    /// The state that the beginning of this operation puts a VM in.
    pub(super) fn state_when_begun(&self, state: VmState) -> VmState {
        match self {
            Self::Create { .. }
            | Self::Start
            | Self::StartCold
            | Self::StartRepaired
            | Self::Resume => step(state, &VmEvent::StartBegan),
            Self::Suspend => step(state, &VmEvent::SuspendBegan),
            // Crashed is what users must see.
            Self::CleanUp | Self::Set(_) | Self::Collect(_) => state,
            _ => step(state, &VmEvent::StopBegan),
        }
    }

    /// What ends a VM may interrupt what starts it.
    pub(super) fn interrupts(&self) -> bool {
        matches!(self, Self::Stop { .. } | Self::Kill { .. } | Self::Delete)
    }

    /// Whether this may wait for `running` instead of being refused: what ends a VM for what starts
    /// or suspends it, and whatever a user wants for what users did not ask for.
    pub(super) fn may_follow(&self, running: &Self) -> bool {
        matches!(running, Self::CleanUp | Self::Collect(_))
            || (self.interrupts() && running.interruptible())
    }

    pub(super) fn interruptible(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Suspend) || self.brings_up()
    }
}

/// What is to be different; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub vcpu: Option<u32>,
    pub memory_mib: Option<u32>,
    pub disk: Option<Size>,
    pub work_disk: Option<Size>,
    pub restart: Option<RestartPolicy>,
    pub health: Option<HealthChange>,
}

impl Changes {
    /// A policy that is taken away takes with it what it had in mind.
    pub(super) fn apply(&self, record: &mut VmRecord) {
        if self.restart == Some(RestartPolicy::No) {
            record.restarts.next_unix_ms = None;
        }
        self.apply_to(&mut record.spec);
    }

    fn apply_to(&self, spec: &mut VmSpec) {
        spec.restart = self.restart.unwrap_or(spec.restart);
        if let Some(change) = &self.health {
            // Checked before.
            spec.health = change.clone().apply(spec.health.as_ref()).unwrap_or_default();
        }
        spec.vcpu = self.vcpu.unwrap_or(spec.vcpu);
        spec.memory_mib = self.memory_mib.unwrap_or(spec.memory_mib);
        spec.disk = self.disk.unwrap_or(spec.disk);
        spec.work_disk = self.work_disk.unwrap_or(spec.work_disk);
    }

    /// Why it cannot be done to this VM.
    pub(super) fn check(&self, record: &VmRecord) -> Result<(), Failure> {
        let VmRecord { spec, state, .. } = record;
        let name = &spec.name;
        if let Some(change) = &self.health {
            let applied = change.clone().apply(spec.health.as_ref());
            applied.map_err(|error| Failure::from_error(Code::Invalid, &error))?;
        }
        let mut wanted = spec.clone();
        self.apply_to(&mut wanted);
        wanted.check().map_err(|error| Failure::from_error(Code::Invalid, &error))?;
        if wanted.disk < spec.disk || wanted.work_disk < spec.work_disk {
            let why =
                format!("{name}: disks only grow; they have {} and {}", spec.disk, spec.work_disk);
            return Err(Failure::new(Code::Refused, why));
        }
        let other = (wanted.vcpu, wanted.memory_mib) != (spec.vcpu, spec.memory_mib);
        let off = matches!(state, VmState::Created | VmState::Stopped | VmState::Crashed);
        if other && !off {
            let why = format!("{name} is {state}; vcpu and memory are changed when it is stopped");
            return Err(Failure::new(Code::Refused, why).hint(format!("banger vm stop {name}")));
        }
        Ok(())
    }
}

/// Whose word an operation carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asker {
    /// What the VM is wanted to be follows from what is asked for.
    #[default]
    Owner,
    /// Its restart policy, when its time has come.
    Policy,
    /// The host, which goes down: what is wanted stays as it is.
    Host,
}

/// Answered once the intent is durable.
#[derive(Clone, Debug)]
pub struct RunOp {
    pub request: OpRequest,
    pub request_hash: u64,
    pub by: Asker,
}

impl Command for RunOp {
    type Reply = Ticket;
    const NAME: &'static str = "vm.run-op";

    fn lane(&self) -> Lane {
        if self.request.interrupts() { Lane::Urgent } else { Lane::Normal }
    }
}

/// Leads to the end of an operation. Dropping it drops the interest, never the operation.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub op_id: OpId,
    pub ended: watch::Receiver<Option<Ended>>,
}

impl Ticket {
    /// For an operation that has ended already.
    #[must_use]
    pub fn settled(ended: Ended) -> Self {
        Self { op_id: ended.op.id, ended: watch::channel(Some(ended)).1 }
    }

    /// Waits for the end. `None`: the operation was cut short and recovery will settle it.
    pub async fn end(&mut self) -> Option<Ended> {
        let ended = self.ended.wait_for(Option::is_some).await.ok()?;
        ended.clone()
    }
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub op: OpRecord,
    /// Why it was undone or got stuck, with everything that helps.
    pub failure: Option<Failure>,
    /// The VM as it was then; nothing if it is gone.
    pub view: Option<VmView>,
}

/// Cancels the operation in flight if it is this one and can go back.
#[derive(Clone, Copy, Debug)]
pub struct CancelOp(pub OpId);

/// What came of the wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// What it has made is taken back; its end tells when.
    Begun,
    NotRunning,
    /// It tears down, which only goes forward.
    OnlyForward,
}

impl Command for CancelOp {
    type Reply = Cancel;
    const NAME: &'static str = "vm.cancel-op";

    fn lane(&self) -> Lane {
        Lane::Urgent
    }
}

/// Internal notices, past tense; one from an older incarnation is dropped.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct OpDone {
    pub(super) incarnation: Incarnation,
    /// Nothing when the operation could not be finished; recovery takes it from there.
    pub(super) ended: Option<Ended>,
}

#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct ProcessExited {
    pub(super) incarnation: Incarnation,
    pub(super) pid: u32,
    pub(super) report: ExitReport,
    /// The console's last lines, read before anything is cleaned up.
    pub(super) console: Vec<String>,
}

/// The policy could not start the VM: there was no room for it, or it could not be asked.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct HeldBack {
    pub(in crate::actors) incarnation: Incarnation,
    pub(in crate::actors) failure: Failure,
}

#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct HealthSeen {
    pub(super) incarnation: Incarnation,
    pub(super) run: HealthRun,
}

#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct DiskSeen {
    pub(super) incarnation: Incarnation,
    pub(super) warning: String,
}

/// A bug on demand, for the tests of supervision.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanicNow;

#[cfg(test)]
impl Command for PanicNow {
    type Reply = ();
    const NAME: &'static str = "vm.panic-now";
}
