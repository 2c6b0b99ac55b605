//! What is wrong with a VM, and what would be done to leave it. Every state and every condition has an
//! exit here: something that is done, or words that say who can.

use super::condition::ConditionKind;
use super::failure::Code;
use super::ledger::LedgerRow;
use super::lifecycle::VmState;
use super::network::TapName;
use super::op::{OpRecord, Outcome};
use super::vm::VmView;

/// What is known of a VM by who is asked.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub view: &'a VmView,
    /// Its actor died too often and stays down.
    pub quarantined: bool,
    /// The tap that its VMM has open is gone.
    pub tap_lost: bool,
    /// An operation of it that has no outcome, and that nobody runs.
    pub abandoned: Option<&'a OpRecord>,
    /// The last operation of it that got stuck, if none has gone well since.
    pub stuck: Option<&'a OpRecord>,
    pub rows: &'a [LedgerRow],
    pub lease: Option<&'a TapName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// In words, the gravest first.
    pub found: Vec<String>,
    pub action: RecoverAction,
    /// What the action does, in order.
    pub steps: Vec<String>,
    /// What is for its owner to do, instead or afterwards.
    pub exit: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverAction {
    /// Nothing is wrong, or it goes by itself.
    None,
    /// The undo, or what it did not get to, is done for all that is left; the disks stay.
    CleanUp,
    /// The guest is asked to stop, and started again.
    Restart,
    /// The process goes on.
    Continue,
    /// Its actor is built anew.
    Revive,
    /// Not by banger alone.
    Elsewhere,
}

impl RecoverAction {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CleanUp => "clean-up",
            Self::Restart => "restart",
            Self::Continue => "continue",
            Self::Revive => "revive",
            Self::Elsewhere => "elsewhere",
        }
    }
}

#[must_use]
pub fn diagnose(of: &Situation<'_>) -> Diagnosis {
    let record = &of.view.record;
    let name = &record.spec.name;
    if of.quarantined {
        return Diagnosis {
            found: vec![format!("the actor of {name} died too often and stays down")],
            action: RecoverAction::Revive,
            steps: vec!["build its actor anew, from what is durable".to_owned()],
            exit: None,
        };
    }
    if let Some((op, kind)) = of.view.busy {
        let found = format!("{name} is busy: {}, {op}", kind.as_str());
        return none(found, Some(format!("`banger ops watch {op}` follows it to its end")));
    }
    if let Some(op) = of.abandoned {
        return Diagnosis {
            found: vec![format!("{} {} was cut short and has no end", op.kind.as_str(), op.id)],
            action: RecoverAction::Elsewhere,
            steps: vec![],
            exit: Some(
                "restart bangerd, which finishes or undoes it; VMs run on meanwhile".to_owned(),
            ),
        };
    }
    match record.state {
        VmState::Error => broken(of),
        VmState::Crashed => crashed(of),
        VmState::Running => running(of),
        state => {
            let mut found = vec![format!("{name} is {state}; nothing is wrong with it")];
            let failure = record.last_failure.as_ref();
            found.extend(failure.map(|failure| format!("its last failure: {}", failure.message)));
            let exit = failure.and_then(|failure| afterwards(failure.code, name.as_str()));
            Diagnosis { found, action: RecoverAction::None, steps: vec![], exit }
        }
    }
}

fn none(found: String, exit: Option<String>) -> Diagnosis {
    Diagnosis { found: vec![found], action: RecoverAction::None, steps: vec![], exit }
}

fn broken(of: &Situation<'_>) -> Diagnosis {
    let record = &of.view.record;
    let name = &record.spec.name;
    let failure = record.last_failure.as_ref();
    let mut found = vec![match failure {
        Some(failure) => format!("{name} is in error ({}): {}", failure.code, failure.message),
        None => format!("{name} is in error"),
    }];
    if let Some(op) = of.stuck
        && let Some(Outcome::Stuck { step, cause, undo }) = &op.outcome
    {
        let kind = op.kind.as_str();
        found.push(format!("{kind} {} is stuck at {step}: {cause}; its undo: {undo}", op.id));
    }
    let exit = failure.and_then(|failure| afterwards(failure.code, name.as_str()));
    let exit = exit.or_else(|| Some(format!("then start it: banger vm start {name}")));
    Diagnosis { found, action: RecoverAction::CleanUp, steps: clean_up(of), exit }
}

fn crashed(of: &Situation<'_>) -> Diagnosis {
    let record = &of.view.record;
    let name = &record.spec.name;
    let how = record.last_exit.as_ref().map_or("its VMM ended", |exit| exit.how.as_str());
    let found = format!("{name} ended though nobody asked: {how}");
    if record.restarts.next_unix_ms.is_some() {
        return none(found, Some("its restart policy starts it again".to_owned()));
    }
    let exit = format!("`banger vm logs {name}` shows its console; banger vm start {name}");
    let (found, exit) = (vec![found], Some(exit));
    Diagnosis { found, action: RecoverAction::CleanUp, steps: clean_up(of), exit }
}

/// What the rows name goes; what has none goes too, if it should be there after all.
fn clean_up(of: &Situation<'_>) -> Vec<String> {
    use super::ledger::ResourceKind as K;
    let held = |kind: K| of.rows.iter().any(|row| row.kind == kind);
    let mut steps = vec![];
    let mut step = |left: bool, text: &str| {
        let said = if left { text.to_owned() } else { format!("make sure: {text}") };
        steps.push(said);
    };
    step(held(K::Process) || held(K::Cgroup), "end what runs of it");
    step(held(K::Device), "close its root device; what was written to it stays");
    step(held(K::Nat), "take away its NAT rule");
    match of.lease {
        Some(tap) => step(true, &format!("give back its tap {tap}")),
        None => step(false, "give back its tap"),
    }
    step(held(K::RunDir) || held(K::Config), "remove its sockets and its configuration drive");
    if held(K::Memory) {
        step(true, "throw away what was saved of its memory");
    }
    steps.push("check its disks, which stay as they are".to_owned());
    steps.push(format!(
        "leave it stopped: {} keeps all that is on its disks",
        of.view.record.spec.name
    ));
    steps
}

fn running(of: &Situation<'_>) -> Diagnosis {
    let record = &of.view.record;
    let name = &record.spec.name;
    let said: Vec<_> = of
        .view
        .conditions
        .iter()
        .map(|seen| format!("{name} runs and is {}: {}", seen.kind, seen.reason))
        .collect();
    let is = |kind| of.view.conditions.iter().find(|seen| seen.kind == kind);
    let restart = || {
        let asked = "ask the guest to stop, end it by force if it does not".to_owned();
        vec![asked, "check its disks if it was not clean".to_owned(), "start it again".to_owned()]
    };
    // The first that applies: what is further down may follow from it.
    if let Some(seen) = is(ConditionKind::NoHelper) {
        let (action, exit) = (RecoverAction::Elsewhere, Some(seen.exit.clone()));
        return Diagnosis { found: said, action, steps: vec![], exit };
    }
    if is(ConditionKind::VmmStopped).is_some() {
        let steps = vec!["send SIGCONT to its VMM".to_owned()];
        let exit = Some(format!("if a debugger holds it: detach it, or `banger vm kill {name}`"));
        return Diagnosis { found: said, action: RecoverAction::Continue, steps, exit };
    }
    // It has no room, and nothing but room lets it go on without loss.
    if let Some(seen) = of.view.standstill() {
        let (action, exit) = (RecoverAction::Elsewhere, Some(seen.exit.clone()));
        return Diagnosis { found: said, action, steps: vec![], exit };
    }
    match is(ConditionKind::Network) {
        Some(seen) if !of.tap_lost => {
            let (action, exit) = (RecoverAction::Elsewhere, Some(seen.exit.clone()));
            return Diagnosis { found: said, action, steps: vec![], exit };
        }
        Some(_) => {
            let (action, steps) = (RecoverAction::Restart, restart());
            return Diagnosis { found: said, action, steps, exit: None };
        }
        None => {}
    }
    let ill = is(ConditionKind::Unresponsive).or_else(|| is(ConditionKind::Unhealthy));
    if ill.is_some() {
        if record.restarts.next_unix_ms.is_some() {
            let exit = Some("its restart policy is about to start it again".to_owned());
            return Diagnosis { found: said, action: RecoverAction::None, steps: vec![], exit };
        }
        let (action, steps) = (RecoverAction::Restart, restart());
        return Diagnosis { found: said, action, steps, exit: None };
    }
    none(format!("{name} runs; nothing is wrong with it"), None)
}

/// What is left to do once a VM that failed so is stopped.
fn afterwards(code: Code, name: &str) -> Option<String> {
    let start = format!("banger vm start {name}");
    Some(match code {
        Code::NoSpace => format!("make room on the host's disk, then {start}"),
        Code::HelperUnreachable | Code::Protocol => {
            format!("start banger-helper, of this daemon's version, then {start}")
        }
        Code::Denied => {
            format!("daemon and helper must be configured alike, see `banger doctor`; then {start}")
        }
        Code::Corrupt => format!("banger vm start --repair {name}"),
        Code::VmmMissing => format!("install the VMM, see `banger doctor`; then {start}"),
        Code::CrashLoop => format!("`banger vm logs {name}` says why; {start} counts anew"),
        Code::GuestDied | Code::GuestUnreachable | Code::Deadline => {
            format!("`banger vm logs {name}` shows its console; {start}")
        }
        Code::NotFound => format!("import what is missing of its image or kernel, then {start}"),
        Code::AddressPoolFull => format!("stop or delete another VM, then {start}"),
        Code::Internal
        | Code::Interrupted
        | Code::Invalid
        | Code::Exists
        | Code::Busy
        | Code::Refused
        | Code::Overloaded
        | Code::Conflict
        | Code::InUse
        | Code::Cancelled
        | Code::Stuck
        | Code::Host => return None,
    })
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
