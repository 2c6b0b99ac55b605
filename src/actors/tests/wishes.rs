//! The model's part on what owners want and what restart policies make of it: who may start a VM that
//! nobody asked for, and what becomes of a wish.

use super::expected::{Cmd, Is, Meanwhile, Vm, states_after};
use super::*;
use crate::model::{OpRecord, VmRecord, Wanted};

/// As many failures as a crash loop has.
const FAILURES: usize = 5;

impl Vm {
    fn has_policy(&self) -> bool {
        self.spec.restart != RestartPolicy::No && self.wanted == Wanted::Running
    }

    fn wished(&self, wanted: Wanted, due: bool) -> Option<Self> {
        Some(Self { wanted, due, ..self.clone() })
    }

    fn gave_up(&self) -> Option<Self> {
        Some(Self { is: Is::GaveUp, wanted: Wanted::Running, due: false, ..self.clone() })
    }
}

/// Whether that is why the VM is in an error, and it was tried as often as it must be.
pub(super) fn has_given_up(record: &VmRecord) -> bool {
    let used = match record.spec.restart {
        RestartPolicy::OnFailure { max: Some(max) } => record.restarts.count >= max,
        _ => false,
    };
    let told = record.last_failure.as_ref().is_some_and(|last| last.code == Code::CrashLoop);
    // Its owner may have changed the policy since.
    told && (used || record.restarts.failures.len() >= FAILURES || record.restarts.count > 0)
}

/// What one operation that is in the books made of a VM. Nothing: it could not have been begun.
pub(super) fn after(
    before: Option<&Vm>,
    asked: Option<&(Cmd, VmSpec)>,
    op: &OpRecord,
    meanwhile: &Meanwhile,
) -> Vec<Option<Vm>> {
    let by_policy = asked.is_none() && op.kind != OpKind::CleanUpVm;
    if by_policy && !before.is_some_and(|vm| may_be_started(vm, op.kind, meanwhile)) {
        return vec![];
    }
    let ends = states_after(before, asked, op, meanwhile.new_daemon).into_iter();
    let wish = |end: Vm| match (op.kind, asked) {
        (OpKind::CleanUpVm, _) => vec![Some(end)],
        (OpKind::SetVm, Some((Cmd::Set { restart: Some(RestartPolicy::No), .. }, _))) => {
            vec![end.wished(end.wanted, false)]
        }
        (OpKind::SetVm, _) => vec![Some(end)],
        _ if end.is_on() => vec![end.wished(Wanted::Running, false)],
        (OpKind::StartVm | OpKind::RestartVm | OpKind::ResumeVm, _)
        | (OpKind::CreateVm, Some((Cmd::Create { start: true, .. }, _))) => {
            not_brought_up(&end, by_policy, meanwhile.new_daemon)
        }
        _ => vec![end.wished(Wanted::Stopped, false)],
    };
    ends.flat_map(|end| end.map_or_else(|| vec![None], wish)).collect()
}

/// Nobody asked for it: its policy did, or the host's restart, which has the last word on what the host
/// itself suspended.
fn may_be_started(vm: &Vm, kind: OpKind, meanwhile: &Meanwhile) -> bool {
    match kind {
        OpKind::StartVm => vm.has_policy(),
        OpKind::ResumeVm => vm.has_policy() || (meanwhile.rebooted && vm.wanted == Wanted::Running),
        OpKind::RestartVm => vm.has_policy() && meanwhile.ill.contains(&vm.id),
        _ => false,
    }
}

/// Whoever asked was told, and it is not wanted any more; its policy tries again. Of an operation that was
/// cut short nobody knows whose it was.
fn not_brought_up(vm: &Vm, by_policy: bool, cut: bool) -> Vec<Option<Vm>> {
    let mut all = vec![];
    if !by_policy || cut {
        all.push(vm.wished(Wanted::Stopped, false));
    }
    if by_policy || cut {
        all.push(vm.wished(Wanted::Running, false));
    }
    if (by_policy || cut) && vm.spec.restart != RestartPolicy::No {
        all.push(vm.wished(Wanted::Running, true));
        if vm.is == Is::Stopped {
            all.push(vm.gave_up());
        }
    }
    if by_policy && !cut {
        // What was given up must say so.
        all.retain(|end| {
            end.as_ref().is_some_and(|end| end.due || !matches!(end.is, Is::Stopped | Is::Created))
        });
    }
    all
}

/// A VM, and the same after what else may have befallen it.
pub(super) fn spread(vm: Option<Vm>, meanwhile: &Meanwhile) -> Vec<Option<Vm>> {
    let Some(vm) = vm else { return vec![None] };
    let mut all = vec![];
    let policy = vm.has_policy();
    let now = |is: Is, due: bool| Some(Vm { is, due, ..vm.clone() });
    match &vm.is {
        Is::On(_) => {
            if meanwhile.ended.contains(&vm.id) {
                all.push(now(Is::Crashed, policy));
                all.extend(policy.then(|| vm.gave_up()));
            }
            if meanwhile.rebooted {
                all.push(now(Is::Stopped, policy));
            }
            if meanwhile.ill.contains(&vm.id) && policy {
                all.push(now(vm.is.clone(), true));
            }
        }
        Is::Stopped | Is::Crashed if meanwhile.rebooted && policy => {
            let always = vm.spec.restart == RestartPolicy::Always;
            all.extend((always || vm.due).then(|| now(vm.is.clone(), true)));
        }
        Is::Suspended(_) if meanwhile.rebooted && vm.wanted == Wanted::Running => {
            all.push(now(vm.is.clone(), true));
        }
        Is::Error if meanwhile.new_daemon => {
            // Its process was still there: no state allows that but one that ends it.
            for (wanted, due) in
                [(vm.wanted, vm.due), (Wanted::Running, false), (Wanted::Stopped, false)]
            {
                all.push(Some(Vm { is: Is::Crashed, wanted, due, ..vm.clone() }));
            }
        }
        _ => {}
    }
    all.push(Some(vm));
    all
}
