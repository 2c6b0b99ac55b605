//! Checks one running VM's health, as long as its actor holds the guard. A plain task: what it finds is
//! its actor's to judge, and an agent that does not answer is a check that failed.

use actix::WeakRecipient;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::messages::HealthSeen;
use crate::actors::mint::Mint;
use crate::model::{Code, HealthCheck, HealthRun, Incarnation, VmId, chain};
use crate::ports::{GuestCheck, Ports};

/// Who is checked, and how.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) vm: VmId,
    pub(super) incarnation: Incarnation,
    pub(super) check: HealthCheck,
}

pub(super) fn watch(
    checked: Checked,
    mint: Mint,
    ports: Ports,
    ear: WeakRecipient<HealthSeen>,
) -> DropGuard {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move {
        let watching = async {
            loop {
                tokio::time::sleep(checked.check.interval).await;
                let seen = look(&checked, &mint, &ports).await;
                let (Some(run), Some(actor)) = (seen, ear.upgrade()) else { continue };
                actor.do_send(HealthSeen { incarnation: checked.incarnation, run });
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watching => {}
        }
    });
    guard
}

/// None: nothing can be known of this guest.
async fn look(checked: &Checked, mint: &Mint, ports: &Ports) -> Option<HealthRun> {
    let Checked { vm, check, .. } = checked;
    let paths = ports.disk.paths(*vm);
    let seen = ports.guest.check(mint.op(), &paths, &check.command, check.timeout).await;
    let GuestCheck { healthy, how, output } = match seen {
        Ok(seen) => seen,
        Err(error) if error.code == Code::Refused => {
            tracing::warn!(vm_id = %vm, error = %chain(&error), "health not checked");
            return None;
        }
        Err(error) => GuestCheck { healthy: false, how: chain(&error), output: String::new() },
    };
    Some(HealthRun { unix_ms: ports.clock.unix_ms(), healthy, how, output })
}
