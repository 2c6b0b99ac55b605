//! What an operation does, in phases, and which plan an interrupted one had.

use super::collect_vm::collect_again;
use super::{
    Step, clean_up_vm, create_and_start, create_vm, delete_vm, kill_vm, recover_vm, restart_vm,
    resume_vm, set_vm, start_after_clean_up, start_vm, stop_vm, suspend_vm,
};
use crate::model::{Entry, OpKind, VmRecord};

/// Where a phase goes when it cannot go on: what builds up is taken back, what tears down goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Back,
    Forward,
}

/// Steps that end together: all done, or (building up) all undone. Earlier phases stay.
#[derive(Debug)]
pub struct Phase {
    pub direction: Direction,
    pub steps: Vec<Box<dyn Step>>,
}

pub type Plan = Vec<Phase>;

/// The plan that an operation had, as far as its journal tells. None: it had none, as those on
/// images and kernels.
///
/// A create that went on to start the VM has a step of the start in the journal write that ends
/// its first phase, so what is not in the journal was not asked for or not begun.
#[must_use]
pub fn plan_for_recovery(kind: OpKind, vm: &VmRecord, history: &[Entry]) -> Option<Plan> {
    let mentions = |phase: &Phase| {
        phase.steps.iter().any(|step| history.iter().any(|entry| entry.step == step.name()))
    };
    let plan = match kind {
        OpKind::CreateVm => {
            let whole = create_and_start(vm);
            if mentions(&whole[1]) { whole } else { create_vm(vm) }
        }
        OpKind::StartVm => {
            let whole = start_after_clean_up(vm);
            // Of one that did not get to its first step nobody knows which it was; and taking away
            // what is not there does no harm.
            if history.is_empty() || mentions(&whole[0]) { whole } else { start_vm(vm) }
        }
        OpKind::StopVm => stop_vm(None),
        // The signal is not in the journal; what was to end is ended.
        OpKind::KillVm => kill_vm(None),
        OpKind::CleanUpVm => clean_up_vm(),
        OpKind::DeleteVm => delete_vm(),
        OpKind::RestartVm => restart_vm(vm, None),
        OpKind::SuspendVm => suspend_vm(),
        OpKind::ResumeVm => resume_vm(vm),
        OpKind::SetVm => set_vm(),
        OpKind::CollectVm => collect_again(history),
        OpKind::RecoverVm => recover_vm(vm),
        OpKind::BuildImage
        | OpKind::ImportImage
        | OpKind::DeleteImage
        | OpKind::ImportKernel
        | OpKind::DeleteKernel
        | OpKind::TagImage
        | OpKind::CommitVm
        | OpKind::CollectGarbage
        | OpKind::EmptyCache
        | OpKind::PullImage
        | OpKind::PullKernel => return None,
    };
    Some(plan)
}
