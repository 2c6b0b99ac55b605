//! Watches one running VMM: tells its actor when the process ends and when its disk fills, keeps
//! its logs below their cap.
//!
//! A plain task, stopped by dropping its guard. It waits on the process itself, never polls it.

use std::time::Duration;

use actix::WeakRecipient;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::conditions::Observed;
use super::gauge::{Change, Gauge};
use super::messages::{DiskSeen, ProcessExited};
use super::pulse;
use crate::actors::mint::Mint;
use crate::model::{ExitReport, Incarnation, ProcessIdentity, VmId, VmView};
use crate::ports::{HostError, Ports};

const CAP_LOGS_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much of the console a crash report shows.
const CONSOLE_LINES: usize = 20;

#[derive(Clone)]
pub(super) struct Watched {
    pub(super) vm: VmId,
    pub(super) incarnation: Incarnation,
    pub(super) process: ProcessIdentity,
    pub(super) view: watch::Receiver<VmView>,
    pub(super) mint: Mint,
}

/// Who is told what.
pub(super) struct Ears {
    pub(super) exited: WeakRecipient<ProcessExited>,
    pub(super) disk: WeakRecipient<DiskSeen>,
    pub(super) observed: WeakRecipient<Observed>,
}

pub(super) fn watch(watched: Watched, ports: Ports, ears: Ears) -> DropGuard {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    pulse::watch(watched.clone(), ports.clone(), ears.observed.clone(), stop.clone());
    let Ears { exited, disk, observed } = ears;
    tokio::spawn(async move {
        let Watched { vm, incarnation, process, view, mint } = watched;
        let ended = ended(&ports, vm, &process);
        tokio::pin!(ended);
        let mut tick = tokio::time::interval(CAP_LOGS_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let (gauged, mut gauge) = (Gauge::concerns(&view.borrow()), Gauge::new(&view.borrow()));
        let report = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                report = &mut ended => break report,
                _ = look.tick(), if gauged => {
                    // The limit may have been raised since.
                    let (limit, name) = {
                        let spec = &view.borrow().record.spec;
                        (spec.disk, spec.name.to_string())
                    };
                    let seen = gauge.look(mint.op(), vm, limit, &name, &ports).await;
                    match (seen, disk.upgrade(), observed.upgrade()) {
                        (Some(Change::Warned(warning)), Some(actor), _) => {
                            actor.do_send(DiskSeen { incarnation, warning });
                        }
                        (Some(Change::Seen(observe)), _, Some(actor)) => {
                            actor.do_send(Observed { incarnation, observe });
                        }
                        _ => {}
                    }
                }
                _ = tick.tick() => {
                    if let Err(error) = ports.disk.cap_logs(vm).await {
                        tracing::warn!(vm_id = %vm, error = %crate::model::chain(&error), "logs not capped");
                    }
                }
            }
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                // Without a watch the VM would be shown as running for ever, which is worse than
                // an unknown exit: the clean-up that follows makes the claim true.
                tracing::error!(vm_id = %vm, error = %crate::model::chain(&error), "process watch lost");
                let unix_ms = ports.clock.unix_ms();
                ExitReport { unix_ms, how: "unknown (watch lost)".to_owned() }
            }
        };
        let console = ports.disk.console_tail(vm, CONSOLE_LINES).await.unwrap_or_default();
        if let Some(actor) = exited.upgrade() {
            actor.do_send(ProcessExited { incarnation, pid: process.pid, report, console });
        }
    });
    guard
}

/// A watch that cannot be kept (no descriptors left, say) says nothing of the process: while that
/// lives it is watched again.
async fn ended(
    ports: &Ports,
    vm: VmId,
    process: &ProcessIdentity,
) -> Result<ExitReport, HostError> {
    loop {
        match ports.process.exited(vm, process).await {
            Err(error) if ports.process.is_alive(process) => {
                tracing::warn!(vm_id = %vm, error = %crate::model::chain(&error), "process not watched");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            ended => return ended,
        }
    }
}
