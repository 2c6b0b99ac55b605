//! What is wrong with a VM that runs: whoever notices tells its actor, which shows it and says so.
//!
//! What must not be done here: decide what becomes of the VM. A condition is seen, and it goes when
//! its cause goes.

use actix::prelude::*;

use super::VmActor;
use crate::actors::envelope::{CallError, Command, Req};
use crate::model::{Condition, ConditionKind, EventKind, Finding, Incarnation, VmState};

/// Whether that is wrong with it, and why.
#[derive(Clone, Debug)]
pub struct Observe {
    pub kind: ConditionKind,
    pub found: Option<Finding>,
}

impl Command for Observe {
    type Reply = ();
    const NAME: &'static str = "vm.observe";
}

/// The same from those who watch this VM alone.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct Observed {
    pub(super) incarnation: Incarnation,
    pub(super) observe: Observe,
}

impl VmActor {
    /// Told again and again, it tells once.
    pub(super) fn observe(&mut self, observe: Observe) {
        let Observe { kind, found } = observe;
        if self.record.state != VmState::Running || self.running.is_some() {
            return; // what is being done to it decides what it is
        }
        let known = self.conditions.iter().position(|condition| condition.kind == kind);
        let name = &self.record.spec.name;
        let text = match (known, found) {
            (None, None) => return,
            (Some(at), Some(found)) => {
                if self.conditions[at].reason == found.reason {
                    return;
                }
                self.conditions[at].reason.clone_from(&found.reason);
                format!("{name}: still {kind}: {}; {}", found.reason, found.exit)
            }
            (None, Some(Finding { reason, exit })) => {
                let text = format!("{name}: {kind}: {reason}; {exit}");
                let since_unix_ms = self.scope.deps.ports.clock.unix_ms();
                self.conditions.push(Condition { kind, reason, since_unix_ms, exit });
                text
            }
            (Some(at), None) => {
                self.conditions.remove(at);
                format!("{name}: {kind} no more")
            }
        };
        tracing::warn!(vm_id = %self.scope.vm, text, "condition");
        self.scope.deps.events.publish(None, Some(self.scope.vm), EventKind::Note { text });
        self.publish();
    }
}

impl Handler<Req<Observe>> for VmActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, req: Req<Observe>, _: &mut Self::Context) -> Self::Result {
        self.observe(req.cmd);
        Ok(())
    }
}

impl Handler<Observed> for VmActor {
    type Result = ();

    fn handle(&mut self, observed: Observed, _: &mut Self::Context) {
        if observed.incarnation == self.incarnation {
            self.observe(observed.observe);
        }
    }
}
