//! Watches how much of its disk a running VM has filled, where the host holds what it writes in a
//! file of its own: told at four fifths, paused before the limit, let go again when there is room.
//!
//! Pausing is no operation: nothing is made that a crash could leave behind. A daemon that starts
//! anew looks again and comes to the same end.

use super::conditions::Observe;
use super::standstill::let_go_on;
use crate::model::{ConditionKind, DiskBackend, Finding, OpId, Size, VmId, VmView, chain};
use crate::ports::Ports;

/// Parts of the limit, in hundred.
const WARN_AT: u64 = 80;
const PAUSE_AT: u64 = 90;
/// Below this the host's own file system is about to fill, which no guest's disk survives.
pub(super) const HOST_RESERVE: Size = Size::from_mib(64);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Fine,
    Warn(String),
    /// Why it may not go on.
    Full(String),
    /// The same, for want of room that is not its own.
    HostFull(String),
}

/// What is new.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Warned(String),
    /// It was paused, or goes on.
    Seen(Observe),
}

/// What is known of one running VM.
#[derive(Debug)]
pub(super) struct Gauge {
    warned: bool,
    /// Not known before the first look: an earlier daemon may have paused it.
    paused: Option<bool>,
}

impl Gauge {
    pub(super) fn new(view: &VmView) -> Self {
        let told = view.conditions.iter().any(|seen| seen.kind == ConditionKind::Paused);
        Self { warned: false, paused: told.then_some(true) }
    }

    /// Whether this VM's disk is of a kind that is watched.
    pub(super) fn concerns(view: &VmView) -> bool {
        view.record.spec.root.backend == DiskBackend::DmSnapshot
    }

    /// Looks, acts, and answers with what users should know of it.
    pub(super) async fn look(
        &mut self,
        op: OpId,
        vm: VmId,
        limit: Size,
        name: &str,
        ports: &Ports,
    ) -> Option<Change> {
        let look = async {
            Ok::<_, crate::ports::HostError>((
                ports.disk.root_fill(vm).await?,
                ports.disk.free().await?,
            ))
        };
        let level = match look.await {
            Ok((used, free)) => level(used, limit, free, name),
            Err(error) => {
                tracing::warn!(vm_id = %vm, error = %chain(&error), "disk not looked at");
                return None;
            }
        };
        let (paths, known) = (ports.disk.paths(vm), self.paused);
        let full = matches!(level, Level::Full(_) | Level::HostFull(_));
        if known != Some(full) {
            let done = match full {
                true => ports.hypervisor.pause(op, &paths).await,
                false if known.is_none() => ports.hypervisor.unpause(op, &paths).await,
                false => let_go_on(op, vm, ports).await,
            };
            if let Err(error) = done {
                tracing::error!(vm_id = %vm, full, error = %chain(&error), "vm not paused or let go on");
                return None;
            }
            self.paused = Some(full);
        }
        let exit = format!("`banger vm set {name} --disk-size SIZE` makes room");
        let seen = |found| Some(Change::Seen(Observe { kind: ConditionKind::Paused, found }));
        match level {
            Level::Full(reason) if known != Some(true) => seen(Some(Finding { reason, exit })),
            Level::HostFull(reason) if known != Some(true) => {
                let exit = format!("it goes on by itself when the host has {HOST_RESERVE} free");
                seen(Some(Finding { reason, exit }))
            }
            _ if !full && known == Some(true) => seen(None),
            Level::Warn(text) if !self.warned => {
                self.warned = true;
                Some(Change::Warned(format!("{text}; {exit}")))
            }
            Level::Fine => {
                self.warned = false;
                None
            }
            Level::Warn(_) | Level::Full(_) | Level::HostFull(_) => None,
        }
    }
}

fn level(used: Size, limit: Size, free: Size, name: &str) -> Level {
    let part = used.bytes().saturating_mul(100) / limit.bytes().max(1);
    if free < HOST_RESERVE {
        return Level::HostFull(format!("the host's file system has {free} left"));
    }
    let filled = format!("{part} % of the disk of {name} ({limit}) is used");
    match part {
        PAUSE_AT.. => Level::Full(filled),
        WARN_AT.. => Level::Warn(filled),
        _ => Level::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_limit_and_the_host() {
        let mib = Size::from_mib;
        let at = |used| level(mib(used), mib(100), mib(1000), "web");
        assert_eq!(at(79), Level::Fine);
        assert!(matches!(at(80), Level::Warn(text) if text.contains("80 %")));
        assert!(matches!(at(89), Level::Warn(_)));
        assert!(matches!(at(90), Level::Full(_)) && matches!(at(200), Level::Full(_)));
        assert!(matches!(level(mib(1), mib(100), mib(63), "web"), Level::HostFull(_)));
    }
}
