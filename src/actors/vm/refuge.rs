//! What a VM's actor has to say before something of its VM is collected, or its VM recovered: whoever asked
//! looked some time ago, and only here nothing else can happen.

use super::{RunOp, Ticket, VmActor, op};
use crate::actors::envelope::CallError;
use crate::model::{Code, Failure, OpId, ResourceKind, VmHandles, VmState, may_collect};

impl VmActor {
    /// Why this must not be taken away.
    pub(super) fn keeps(&self, kind: ResourceKind) -> Option<Failure> {
        let (store, vm) = (&self.scope.deps.store, self.scope.vm);
        let (name, state) = (&self.record.spec.name, self.record.state);
        let has_row = match kind {
            ResourceKind::Tap => store.tap_of(vm).map(|tap| tap.is_some()),
            _ => store.ledger_of(vm).map(|rows| rows.iter().any(|row| row.kind == kind)),
        };
        match has_row {
            Ok(has_row) if may_collect(kind, state, has_row) => None,
            Ok(_) => {
                let message = format!("{name} is {state} and keeps its {kind}");
                Some(Failure::new(Code::InUse, message).hint(format!("banger vm recover {name}")))
            }
            Err(error) => Some(Failure::from(&error)),
        }
    }

    /// The answer to a recovery of a VM that needs none, or another one.
    pub(super) fn nothing_to_recover(
        &self,
        op_id: OpId,
        cmd: &RunOp,
    ) -> Option<Result<Ticket, CallError>> {
        let (name, state) = (&self.record.spec.name, self.record.state);
        match state {
            VmState::Error | VmState::Crashed => None,
            VmState::Created | VmState::Stopped if self.handles != VmHandles::default() => None,
            VmState::Created | VmState::Stopped | VmState::Suspended => {
                let op = self.unrecorded(op_id, cmd);
                let view = self.scope.view.borrow().clone();
                let why = format!("{state}, and nothing is wrong with it");
                Some(Ok(Ticket::settled(op::unchanged(op, why, Some(view)))))
            }
            _ => {
                let message = format!("{name} is {state}: it is not recovered while it is on");
                let failure = Failure::new(Code::Refused, message);
                let hint = format!("`banger vm recover {name}` says what is wrong with it");
                Some(Err(failure.hint(hint).of(op_id).into()))
            }
        }
    }
}
