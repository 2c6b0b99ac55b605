//! Feels the pulse of one running VM: whether its VMM's process was stopped, and whether its guest
//! answers.
//!
//! A task beside the monitor's, for a guest that does not answer must not keep anybody from noticing
//! that its VMM ends. It only tells: what hangs today may go on tomorrow.

use std::time::Duration;

use actix::WeakRecipient;
use tokio_util::sync::CancellationToken;

use super::conditions::{Observe, Observed};
use super::monitor::Watched;
use super::standstill::Standstill;
use crate::model::{ConditionKind, Finding, OpId, VmView};
use crate::ports::Ports;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// In looks.
const PING_EVERY: u32 = 10;
const PING_LIMIT: Duration = Duration::from_secs(5);
/// A guest that is very busy misses one.
const MISSES: u32 = 3;

/// What is known of one running VM, and what was told of it.
#[derive(Debug, Default)]
struct Pulse {
    looks: u32,
    /// So many looks in a row found the process stopped.
    stopped: u32,
    /// So many pings in a row were not answered.
    missed: u32,
    told: Vec<ConditionKind>,
}

impl Pulse {
    /// An earlier watch may have told something.
    fn new(view: &VmView) -> Self {
        Self { told: view.conditions.iter().map(|seen| seen.kind).collect(), ..Self::default() }
    }

    /// Whether a guest that could answer is to be asked now. Once it misses, it is asked at every look.
    fn is_to_ping(&self, may_answer: bool) -> bool {
        may_answer
            && self.stopped == 0
            && (self.looks.is_multiple_of(PING_EVERY) || self.missed > 0)
    }

    /// `answered`: none, if it was not asked.
    fn saw(&mut self, stopped: bool, answered: Option<bool>) {
        self.looks = self.looks.wrapping_add(1);
        self.stopped = if stopped { self.stopped.saturating_add(1) } else { 0 };
        match answered {
            _ if stopped => self.missed = 0,
            Some(true) => self.missed = 0,
            Some(false) => self.missed = self.missed.saturating_add(1),
            None => {}
        }
    }

    /// Whether it is worth asking its VMM why.
    fn is_in_doubt(&self) -> bool {
        self.missed + 1 >= MISSES
    }

    /// It could not answer.
    fn excuse(&mut self) {
        self.missed = 0;
    }

    /// What is new, for users.
    fn news(&mut self, name: &str, pid: u32) -> Vec<Observe> {
        let stopped = (self.stopped > 1).then(|| Finding {
            reason: format!("its VMM, process {pid}, was stopped by a signal"),
            exit: format!("`kill -CONT {pid}` lets it go on, `banger vm kill {name}` ends it"),
        });
        let silent = (self.missed >= MISSES).then(|| Finding {
            reason: format!("its guest has not answered {MISSES} times"),
            exit: format!(
                "`banger vm logs {name}` shows its console, `banger vm restart {name}` or \
                 `banger vm kill {name}` ends it"
            ),
        });
        let mut news = vec![];
        for (kind, found) in
            [(ConditionKind::VmmStopped, stopped), (ConditionKind::Unresponsive, silent)]
        {
            if found.is_some() == self.told.contains(&kind) {
                continue;
            }
            self.told.retain(|told| *told != kind);
            self.told.extend(found.is_some().then_some(kind));
            news.push(Observe { kind, found });
        }
        news
    }
}

pub(super) fn watch(
    watched: Watched,
    ports: Ports,
    ear: WeakRecipient<Observed>,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let Watched { vm, incarnation, process, view, mint } = watched;
        let (mut pulse, paths) = (Pulse::new(&view.borrow()), ports.disk.paths(vm));
        let mut standstill = Standstill::new(&view.borrow());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let stopped = ports.process.is_stopped(&process);
            let (name, may_answer) = {
                let view = view.borrow();
                let free = view.standstill().is_none() && view.busy.is_none();
                (view.record.spec.name.to_string(), free)
            };
            let mut answered = None;
            if pulse.is_to_ping(may_answer && !stopped) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    pong = ping(&ports, mint.op(), &paths) => answered = Some(pong),
                }
            }
            // What it did not answer while it was being stopped says nothing of the guest.
            pulse.saw(stopped || ports.process.is_stopped(&process), answered);
            let mut news = vec![];
            if pulse.is_in_doubt() || standstill.is_told() {
                news.extend(standstill.look(mint.op(), vm, &ports).await);
            }
            if standstill.is_told() {
                pulse.excuse();
            }
            news.extend(pulse.news(&name, process.pid));
            for observe in news {
                let Some(actor) = ear.upgrade() else { return };
                actor.do_send(Observed { incarnation, observe });
            }
        }
    });
}

async fn ping(ports: &Ports, op: OpId, paths: &crate::ports::VmPaths) -> bool {
    let pong = ports.guest.ping(op, paths, PING_LIMIT);
    matches!(tokio::time::timeout(PING_LIMIT, pong).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(news: &[Observe]) -> Vec<(ConditionKind, bool)> {
        news.iter().map(|observe| (observe.kind, observe.found.is_some())).collect()
    }

    #[test]
    fn a_stopped_vmm_is_told_once_and_its_guest_is_not_blamed() {
        let mut pulse = Pulse::default();
        pulse.saw(true, None);
        assert!(pulse.news("web", 7).is_empty(), "one look may be a debugger's");
        pulse.saw(true, None);
        let news = pulse.news("web", 7);
        assert_eq!(kinds(&news), [(ConditionKind::VmmStopped, true)]);
        let found = news[0].found.clone().unwrap();
        assert!(found.reason.contains('7') && found.exit.contains("kill -CONT 7"), "{found:?}");
        pulse.saw(true, Some(false));
        assert!(pulse.news("web", 7).is_empty() && !pulse.is_to_ping(true));
        pulse.saw(false, None);
        assert_eq!(kinds(&pulse.news("web", 7)), [(ConditionKind::VmmStopped, false)]);
    }

    #[test]
    fn a_guest_is_unresponsive_after_three_misses_and_until_it_answers() {
        let mut pulse = Pulse::default();
        assert!(pulse.is_to_ping(true) && !pulse.is_to_ping(false));
        for _ in 0..2 {
            pulse.saw(false, Some(false));
            assert!(pulse.news("web", 7).is_empty());
            assert!(pulse.is_to_ping(true), "one that misses is asked again at once");
        }
        pulse.saw(false, Some(false));
        assert_eq!(kinds(&pulse.news("web", 7)), [(ConditionKind::Unresponsive, true)]);
        pulse.saw(false, Some(true));
        assert_eq!(kinds(&pulse.news("web", 7)), [(ConditionKind::Unresponsive, false)]);
        assert!(!pulse.is_to_ping(true), "it is left in peace for a while");
    }
}
