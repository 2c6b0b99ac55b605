//! From the model to what crosses the socket. The model stays free to change; these shapes do not.

use super::reply::{
    BusyInfo, DevicesInfo, DiskInfo, EventInfo, EventKindInfo, ExitInfo, FailureInfo,
    ImageConfigInfo, ImageInfo, KernelFeatureInfo, KernelInfo, OpInfo, ProgramInfo, StepInfo,
    VmInfo,
};
use super::request::{self, Vmm};
use crate::model::{
    DeviceCounters, DiskBackend, DiskChoice, Event, EventKind, Failure, HOST_IS_X86, ImageConfig,
    ImageRecord, ImageUse, KernelFeature, KernelRecord, KernelSupport, OpRecord, Outcome,
    StepStatus, StepTiming, Transfer, VmView, VmmChoice, needed_by,
};

impl From<&Failure> for FailureInfo {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code.to_string(),
            message: failure.message.clone(),
            hints: failure.hints.clone(),
            retryable: failure.retryable,
            op_id: failure.op_id.map(|op| op.to_string()),
            detail: failure.detail.clone(),
        }
    }
}

impl From<Vmm> for VmmChoice {
    fn from(vmm: Vmm) -> Self {
        match vmm {
            Vmm::Auto => Self::Auto,
            Vmm::Qemu => Self::Qemu,
            Vmm::Firecracker => Self::Firecracker,
        }
    }
}

impl From<request::DiskBackend> for DiskChoice {
    fn from(disk: request::DiskBackend) -> Self {
        match disk {
            request::DiskBackend::Auto => Self::Auto,
            request::DiskBackend::Reflink => Self::Only(DiskBackend::Reflink),
            request::DiskBackend::DmSnapshot => Self::Only(DiskBackend::DmSnapshot),
            request::DiskBackend::Overlay => Self::Only(DiskBackend::Overlay),
        }
    }
}

impl From<&VmView> for DiskInfo {
    fn from(view: &VmView) -> Self {
        let root = &view.record.spec.root;
        Self {
            backend: root.backend.to_string(),
            why: root.why.clone(),
            used_bytes: None,
            limit_bytes: None,
            paused: view.standstill().map(|condition| condition.reason.clone()),
        }
    }
}

impl From<&VmView> for VmInfo {
    fn from(view: &VmView) -> Self {
        let VmView { record, handles, generation, busy, .. } = view;
        let busy = busy
            .map(|(op, kind)| BusyInfo { op_id: op.to_string(), kind: kind.as_str().to_owned() });
        let exit = record.last_exit.as_ref();
        Self {
            id: record.id.to_string(),
            name: record.spec.name.to_string(),
            state: record.state.to_string(),
            generation: *generation,
            image: record.spec.image.clone(),
            image_digest: record.image.to_string(),
            kernel: record.spec.kernel.clone(),
            kernel_digest: record.kernel.to_string(),
            address: record.address.to_string(),
            mac: record.mac().to_string(),
            vcpu: record.spec.vcpu,
            memory_mib: record.spec.memory_mib,
            disk_bytes: record.spec.disk.bytes(),
            work_disk_bytes: record.spec.work_disk.bytes(),
            nat: record.spec.nat,
            env_names: record.spec.env.iter().map(|(name, _)| name.clone()).collect(),
            created_unix_ms: record.created_unix_ms,
            busy,
            vmm: handles.vmm.clone(),
            pid: handles.process.as_ref().map(|process| process.pid),
            tap: handles.tap.as_ref().map(ToString::to_string),
            guest_boot_id: handles.guest_boot_id.clone(),
            host_key: record.keys.host_public.clone(),
            last_failure: record.last_failure.as_ref().map(Into::into),
            last_exit: exit.map(|exit| ExitInfo { unix_ms: exit.unix_ms, how: exit.how.clone() }),
        }
    }
}

impl From<DeviceCounters> for DevicesInfo {
    fn from(counters: DeviceCounters) -> Self {
        let DeviceCounters {
            net_in_bytes,
            net_out_bytes,
            net_in_packets,
            net_out_packets,
            disk_read_bytes,
            disk_written_bytes,
            disk_reads,
            disk_writes,
            disk_flushes,
            vsock_in_bytes,
            vsock_out_bytes,
        } = counters;
        Self {
            net_in_bytes,
            net_out_bytes,
            net_in_packets,
            net_out_packets,
            disk_read_bytes,
            disk_written_bytes,
            disk_reads,
            disk_writes,
            disk_flushes,
            vsock_in_bytes,
            vsock_out_bytes,
        }
    }
}

impl From<(&ImageRecord, Vec<String>)> for ImageInfo {
    fn from((image, used_by): (&ImageRecord, Vec<String>)) -> Self {
        Self {
            name: image.name.to_string(),
            digest: image.digest.to_string(),
            size_bytes: image.size.bytes(),
            source: image.source.clone(),
            created_unix_ms: image.created_unix_ms,
            used_by,
        }
    }
}

impl From<ImageConfig> for ImageConfigInfo {
    fn from(config: ImageConfig) -> Self {
        let pair = |(name, value): (String, String)| format!("{name}={value}");
        Self {
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env.into_iter().map(pair).collect(),
            user: config.user,
            working_dir: config.workdir,
            stop_signal: config.stop_signal,
            exposed_ports: config.ports,
            volumes: config.volumes,
            labels: config.labels.into_iter().collect(),
        }
    }
}

impl From<ImageUse> for ProgramInfo {
    fn from(ImageUse { config, runs }: ImageUse) -> Self {
        let entrypoint = config.wrapper().to_vec();
        let cmd = config.program().split_off(entrypoint.len());
        let ImageConfig { user, workdir, stop_signal, .. } = config;
        Self { entrypoint, cmd, user, workdir, stop_signal, runs }
    }
}

impl From<(&KernelRecord, Vec<String>)> for KernelInfo {
    fn from((kernel, used_by): (&KernelRecord, Vec<String>)) -> Self {
        Self {
            name: kernel.name.to_string(),
            digest: kernel.digest.to_string(),
            version: kernel.version.clone(),
            distro: kernel.distro.clone(),
            arch: kernel.arch.clone(),
            modules: kernel.modules,
            size_bytes: kernel.size.bytes(),
            source: kernel.source.clone(),
            created_unix_ms: kernel.created_unix_ms,
            used_by,
        }
    }
}

impl From<(KernelFeature, KernelSupport)> for KernelFeatureInfo {
    fn from((feature, support): (KernelFeature, KernelSupport)) -> Self {
        let needed_by = needed_by(feature, HOST_IS_X86).into_iter().map(str::to_owned);
        Self {
            option: feature.option().to_owned(),
            support: support.as_str().to_owned(),
            purpose: feature.purpose().to_owned(),
            needed_by: needed_by.collect(),
        }
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Unchanged(_) => "unchanged",
        Outcome::RolledBack { .. } => "rolled-back",
        Outcome::Stuck { .. } => "stuck",
    }
}

impl From<(&OpRecord, &[StepTiming])> for OpInfo {
    fn from((op, steps): (&OpRecord, &[StepTiming])) -> Self {
        let (step, cause, undo) = match op.outcome.clone() {
            None | Some(Outcome::Done) => (None, None, None),
            Some(Outcome::Unchanged(why)) => (None, Some(why), None),
            Some(Outcome::RolledBack { step, cause }) => (Some(step), Some(cause), None),
            Some(Outcome::Stuck { step, cause, undo }) => (Some(step), Some(cause), Some(undo)),
        };
        Self {
            id: op.id.to_string(),
            kind: op.kind.as_str().to_owned(),
            subject: op.subject.clone(),
            vm_id: op.vm.map(|vm| vm.to_string()),
            started_unix_ms: op.started_unix_ms,
            ended_unix_ms: op.ended_unix_ms,
            outcome: op.outcome.as_ref().map_or("running", outcome_name).to_owned(),
            step,
            cause,
            undo,
            steps: steps.iter().map(Into::into).collect(),
        }
    }
}

impl From<&StepTiming> for StepInfo {
    fn from(timing: &StepTiming) -> Self {
        let status = match timing.status {
            StepStatus::NotStarted => "not-started",
            StepStatus::Running => "running",
            StepStatus::Done => "done",
            StepStatus::Failed => "failed",
            StepStatus::Undoing => "undoing",
            StepStatus::Undone => "undone",
            StepStatus::UndoFailed => "undo-failed",
        };
        Self {
            step: timing.step.clone(),
            status: status.to_owned(),
            started_unix_ms: timing.started_unix_ms,
            ended_unix_ms: timing.ended_unix_ms,
            error: timing.error.clone(),
        }
    }
}

impl From<&Event> for EventInfo {
    fn from(event: &Event) -> Self {
        Self {
            seq: event.seq,
            unix_ms: event.unix_ms,
            op_id: event.op_id.map(|op| op.to_string()),
            vm_id: event.vm.map(|vm| vm.to_string()),
            kind: event.kind.clone().into(),
        }
    }
}

impl From<EventKind> for EventKindInfo {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::OpStarted { kind, subject } => {
                Self::OpStarted { op: kind.as_str().to_owned(), subject }
            }
            EventKind::StepStarted { step } => Self::StepStarted { step },
            EventKind::StepDone { step, elapsed_us } => Self::StepDone { step, elapsed_us },
            EventKind::StepFailed { step, cause } => Self::StepFailed { step, cause },
            EventKind::StepUndone { step } => Self::StepUndone { step },
            EventKind::OpEnded { outcome } => {
                Self::OpEnded { outcome: outcome_name(&outcome).to_owned() }
            }
            EventKind::VmChanged { name, state } => {
                Self::VmChanged { name, state: state.to_string() }
            }
            EventKind::VmExited { name, how, expected } => Self::VmExited { name, how, expected },
            EventKind::ActorRebuilt { actor, incarnation } => {
                Self::ActorRebuilt { actor, incarnation }
            }
            EventKind::ActorQuarantined { actor } => Self::ActorQuarantined { actor },
            EventKind::Progress { text } => Self::Progress { text },
            EventKind::Note { text } => Self::Note { text },
            EventKind::Lost { count } => Self::Lost { count },
            EventKind::Transfer(seen) => {
                let Transfer { blob, number, of, bytes, size, bytes_per_second, left_ms } = seen;
                let size_bytes = size;
                Self::Transfer { blob, number, of, bytes, size_bytes, bytes_per_second, left_ms }
            }
        }
    }
}
