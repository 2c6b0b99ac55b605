//! What requests that change nothing are answered with, and the defaults of those that do.

use std::time::Duration;

use super::follow::left;
use super::house::House;
use super::image_names;
use super::images::{CancelMaking, Withdraw, Withdrawn};
use super::session::{Refusal, Response, Session};
use super::supervisor::ListVms;
use super::vm::{Cancel, CancelOp};
use crate::model::{
    Code, DiskBackend, Entry, Failure, HealthChange, Name, OpId, OpRecord, RootDisk, Size,
    StepEvent, StepStatus, StepTiming, VmSpec, VmState, VmView, VmmChoice, VmmKind,
};
use crate::ports::LogKind;
use crate::wire::reply::{
    Answer, DiskInfo, EndpointInfo, EventInfo, EventKindInfo, OpInfo, Reply, StatusInfo,
    UpkeepInfo, VmInfo,
};
use crate::wire::request::{CreateVm, LogSource, Logs, Upkeep};

/// So many rows fit a frame with room to spare.
const ROWS_PER_FRAME: usize = 100;
/// How often a followed log is looked at.
const LOG_PAUSE: Duration = Duration::from_millis(200);
/// Names given to VMs that have none end in so many random hex digits.
const NAME_BYTES: usize = 4;

/// What was said of a new VM besides what it is to have.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) console: bool,
    pub(super) warm: Option<bool>,
    pub(super) upkeep: Upkeep,
    /// The program of its image runs from every start on.
    pub(super) runs: bool,
}

pub(super) fn fill_spec(
    house: &House,
    create: CreateVm,
    wishes: Wishes,
) -> Result<VmSpec, Failure> {
    let Wishes { console, warm, upkeep, .. } = wishes;
    let health = upkeep.health.map(|health| HealthChange::from(health).apply(None)).transpose();
    let defaults = &house.config.defaults;
    let invalid = |error: &dyn std::error::Error| Failure::from_error(Code::Invalid, error);
    let name = match create.name {
        Some(name) => Name::vm(&name),
        None => {
            let id = house.mint.vm().to_string();
            Name::vm(&format!("vm-{}", &id[..2 * NAME_BYTES]))
        }
    };
    let size = |asked: Option<u64>, default| asked.map_or(default, Size::from_bytes);
    let vmm = match create.vmm.into() {
        crate::model::VmmChoice::Auto => house.config.vmm,
        chosen => chosen,
    };
    let kernel_is_said = create.kernel.is_some();
    let mut spec = VmSpec {
        name: name.map_err(|error| invalid(&error))?,
        image: create.image.unwrap_or_else(|| defaults.image.clone()),
        kernel: create.kernel.unwrap_or_else(|| defaults.kernel.clone()),
        vcpu: create.vcpu.unwrap_or(defaults.vcpu),
        memory_mib: create.memory_mib.unwrap_or(defaults.memory_mib),
        disk: size(create.disk_bytes, defaults.disk),
        work_disk: size(create.work_disk_bytes, defaults.work_disk),
        nat: create.nat,
        env: create.env,
        vmm,
        root: RootDisk::default(), // settled with the image at hand
        console,
        warm: warm.unwrap_or(defaults.warm),
        restart: upkeep.restart.map_or(defaults.restart, Into::into),
        health: health.map_err(|error| invalid(&error))?.flatten(),
    };
    spec.image = image_names::resolve(&house.store, &spec.image)?.to_string();
    if !kernel_is_said {
        let wanted = house.store.image_kernel(&spec.image);
        if let Some(wanted) = wanted.map_err(|error| Failure::from(&error))? {
            spec.kernel = wanted.to_string();
        }
    }
    if !spec.kernel.is_empty() {
        Name::artefact(&spec.kernel).map_err(|error| invalid(&error))?;
    }
    spec.check().map_err(|error| invalid(&error))?;
    Ok(spec)
}

pub(super) async fn status(house: &House, op_id: OpId) -> Result<Response, Refusal> {
    let vms = house.supervisor.call(house.ctx(op_id), ListVms).await?;
    let running = vms.iter().filter(|view| view.record.state == VmState::Running).count();
    let (ready, leased) = house.taps.count(op_id).await;
    let dns = house.dns.bound(op_id).await;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let config = &house.config;
    Ok(Response::Now(Answer::Status(Box::new(StatusInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uid: house.owner_uid,
        started_unix_ms: house.started_unix_ms,
        state_dir: config.state_dir.display().to_string(),
        socket: config.socket.display().to_string(),
        simulated: config.sim.is_some(),
        bridge: config.network.bridge.to_string(),
        subnet: config.network.subnet.to_string(),
        dns_listen: dns.map(|address| address.to_string()),
        taps_ready: count(ready),
        taps_leased: count(leased),
        vms: count(vms.len()),
        vms_running: count(running),
        helper: config.helper_socket.display().to_string(),
    }))))
}

pub(super) async fn upkeep(
    house: &House,
    op_id: OpId,
    vms: &[String],
) -> Result<Response, Refusal> {
    let mut rows = vec![];
    for vm in vms {
        rows.push(UpkeepInfo::from(&house.find(op_id, vm).await?.view));
    }
    if vms.is_empty() {
        let views = house.supervisor.call(house.ctx(op_id), ListVms).await?;
        rows = views.iter().map(UpkeepInfo::from).collect();
    }
    Ok(parts(rows, Answer::Upkeep))
}

pub(super) async fn list_vms(house: &House, op_id: OpId) -> Result<Response, Refusal> {
    let views = house.supervisor.call(house.ctx(op_id), ListVms).await?;
    let rows: Vec<_> = views.iter().map(VmInfo::from).collect();
    Ok(parts(rows, Answer::Vms))
}

/// How full it is takes a look at the host.
pub(super) async fn disk(house: &House, op_id: OpId, vm: &str) -> Result<Response, Refusal> {
    let view = house.find(op_id, vm).await?.view;
    let mut disk = DiskInfo::from(&view);
    if view.record.spec.root.backend == DiskBackend::DmSnapshot {
        let used = house.ports.disk.usage(view.record.id).await;
        disk.used_bytes = Some(used.map_err(|error| Failure::from(&error))?.root_bytes);
        disk.limit_bytes = Some(view.record.spec.disk.bytes());
    }
    Ok(Response::Now(Answer::Disk(Box::new(disk))))
}

pub(super) fn parts<T: Clone>(rows: Vec<T>, answer: fn(Vec<T>) -> Answer) -> Response {
    if rows.len() <= ROWS_PER_FRAME {
        return Response::Now(answer(rows));
    }
    Response::Parts(rows.chunks(ROWS_PER_FRAME).map(|chunk| answer(chunk.to_vec())).collect())
}

pub(super) fn endpoint(house: &House, view: &VmView) -> Result<Response, Refusal> {
    let record = &view.record;
    let image = house.store.image_use(record.id).map_err(|error| Failure::from(&error))?;
    let own = &record.spec.env;
    // Where the VMM has a way of its own into the guest no network is needed, and the server has
    // the same port there.
    let socket = house.ports.disk.paths(record.id).vsock_socket();
    let address = match socket.exists() {
        true => socket.display().to_string(),
        false => record.address.to_string(),
    };
    Ok(Response::Now(Answer::Endpoint(Box::new(EndpointInfo {
        vm_id: record.id.to_string(),
        name: record.spec.name.to_string(),
        address,
        port: house.ports.guest.ssh_port(),
        host_key: record.keys.host_public.clone(),
        client_private: record.keys.client_private.clone(),
        env: image.map_or_else(|| own.clone(), |image| image.config.env_with(own)),
    }))))
}

/// How commands run in a VM if nobody says otherwise.
pub(super) fn program(house: &House, view: &VmView) -> Result<Response, Refusal> {
    let image = house.store.image_use(view.record.id).map_err(|error| Failure::from(&error))?;
    Ok(Response::Now(Answer::Program(image.map(|image| Box::new(image.into())))))
}

pub(super) fn lane(house: &House, view: &VmView) -> Answer {
    let socket = house.ports.disk.paths(view.record.id).lane_socket();
    Answer::Lane { socket: socket.display().to_string() }
}

pub(super) fn list_ops(house: &House, limit: u32) -> Result<Response, Refusal> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    let ops = house.store.ops(limit).map_err(|error| Failure::from(&error))?;
    let rows: Vec<OpInfo> = ops.iter().map(|op| (op, [].as_slice()).into()).collect();
    Ok(parts(rows, Answer::Ops))
}

pub(super) fn list_open_ops(house: &House) -> Result<Response, Refusal> {
    let ops = house.store.open_ops().map_err(|error| Failure::from(&error))?;
    let rows: Vec<OpInfo> = ops.iter().rev().map(|op| (op, [].as_slice()).into()).collect();
    Ok(parts(rows, Answer::Ops))
}

pub(super) fn show_op(house: &House, text: &str) -> Result<Response, Refusal> {
    let op = resolve_op(house, text)?;
    let history = house.store.history(op.id).map_err(|error| Failure::from(&error))?;
    Ok(Response::Now(Answer::Ops(vec![(&op, ladder(&history).as_slice()).into()])))
}

/// By id, or by a unique part of it: ids born together differ at the end.
pub(super) fn resolve_op(house: &House, text: &str) -> Result<OpRecord, Failure> {
    if let Ok(id) = text.parse::<OpId>() {
        let known = house.store.op(id).map_err(|error| Failure::from(&error))?;
        return known.ok_or_else(|| no_op(text));
    }
    let ops = house.store.ops(1000).map_err(|error| Failure::from(&error))?;
    let mut found = ops.into_iter().filter(|op| {
        let id = op.id.to_string();
        text.len() >= 4 && (id.starts_with(text) || id.ends_with(text) || id[3..].starts_with(text))
    });
    match (found.next(), found.next()) {
        (Some(op), None) => Ok(op),
        (Some(_), Some(_)) => {
            Err(Failure::new(Code::Invalid, format!("{text:?} is part of several operation ids"))
                .hint("give more of it"))
        }
        (None, _) => Err(no_op(text)),
    }
}

fn no_op(text: &str) -> Failure {
    Failure::new(Code::NotFound, format!("no operation {text:?} is known")).hint(
        "`banger ops list` shows the latest; what was refused before it began is in the logs only",
    )
}

/// Folds the journal into a line per step, in the order in which they began.
fn ladder(history: &[Entry]) -> Vec<StepTiming> {
    let mut rungs: Vec<StepTiming> = vec![];
    for entry in history {
        let at = rungs.iter().position(|rung| rung.step == entry.step).unwrap_or_else(|| {
            rungs.push(StepTiming {
                step: entry.step.clone(),
                status: StepStatus::NotStarted,
                started_unix_ms: None,
                ended_unix_ms: None,
                error: None,
            });
            rungs.len() - 1
        });
        let Some(rung) = rungs.get_mut(at) else { continue };
        let ended = Some(entry.unix_ms);
        match &entry.event {
            StepEvent::Started => {
                rung.status = StepStatus::Running;
                rung.started_unix_ms = Some(entry.unix_ms);
            }
            StepEvent::Succeeded(_) => {
                (rung.status, rung.ended_unix_ms) = (StepStatus::Done, ended)
            }
            StepEvent::Failed(cause) => {
                (rung.status, rung.ended_unix_ms) = (StepStatus::Failed, ended);
                rung.error = Some(cause.clone());
            }
            StepEvent::UndoStarted => rung.status = StepStatus::Undoing,
            StepEvent::UndoFinished => rung.status = StepStatus::Undone,
            StepEvent::UndoFailed(cause) => {
                rung.status = StepStatus::UndoFailed;
                rung.error = Some(cause.clone());
            }
        }
    }
    rungs
}

pub(super) async fn cancel_op(house: &House, op_id: OpId, text: &str) -> Result<Response, Refusal> {
    let op = resolve_op(house, text)?;
    let refused = |message: String| -> Result<Response, Refusal> {
        let failure = Failure::new(Code::Refused, message);
        Err(failure.hint(format!("`banger ops show {}` shows how it went", op.id)).into())
    };
    if op.outcome.is_some() {
        return refused(format!("{} has ended", op.id));
    }
    let cancel = match op.vm {
        Some(vm) => {
            let found = house.find(op_id, &vm.to_string()).await?;
            found.handle?.call(house.ctx(op_id), CancelOp(op.id)).await?
        }
        None => match house.images.call(house.ctx(op_id), CancelMaking(op.id)).await? {
            true => Cancel::Begun,
            false => Cancel::OnlyForward,
        },
    };
    let (kind, subject) = (op.kind.as_str(), &op.subject);
    match cancel {
        Cancel::Begun => Ok(Response::Now(Answer::Nothing)),
        Cancel::NotRunning => refused(format!("{} is not running", op.id)),
        Cancel::OnlyForward => {
            refused(format!("{kind} {subject} only goes forward: it cannot be cancelled"))
        }
    }
}

/// For whoever waits with others for one operation.
pub(super) async fn withdraw(house: &House, op_id: OpId, text: &str) -> Result<Response, Refusal> {
    let asked = text.parse::<OpId>();
    let asked = asked.map_err(|error| Failure::from_error(Code::Invalid, &error))?;
    match house.images.call(house.ctx(op_id), Withdraw(asked)).await? {
        Withdrawn::Cancelled => Ok(Response::Now(Answer::Nothing)),
        Withdrawn::NotThere => Err(no_op(text).into()),
        Withdrawn::Others(count) => {
            let (them, wait) = if count == 1 { ("another", "waits") } else { ("others", "wait") };
            let message = format!("{them} {wait} for it, so it goes on");
            Err(Failure::new(Code::InUse, message).into())
        }
    }
}

pub(super) async fn logs(session: &mut Session<'_>, logs: Logs) -> Result<Response, Refusal> {
    let house = session.house;
    let view = house.find(session.op_id, &logs.vm).await?.view;
    let vm = view.record.id;
    let kind = match logs.source {
        LogSource::Serial => LogKind::Serial,
        LogSource::Vmm => LogKind::Vmm,
    };
    let read = |from| async move {
        let read = house.ports.disk.read_log(vm, kind, from).await;
        read.map_err(|error| Failure::from(&error))
    };
    let (mut text, mut at) = (vec![], 0);
    loop {
        let (piece, next) = read(at).await?;
        at = next;
        if piece.is_empty() {
            break;
        }
        match logs.tail {
            Some(_) => text.extend(piece),
            None => session.frames.send(&Reply::Bytes(piece)).await?,
        }
    }
    if let (LogSource::Serial, 0, Some(why)) = (logs.source, at, no_console(&view)) {
        session.frames.send(&Reply::Event(note(why))).await?;
    }
    if let Some(lines) = logs.tail {
        let tail = last_lines(&text, usize::try_from(lines).unwrap_or(usize::MAX));
        for piece in tail.chunks(64 << 10) {
            session.frames.send(&Reply::Bytes(piece.to_vec())).await?;
        }
    }
    // Followed as long as the VM exists: it may be started again.
    while logs.follow && house.exists(vm) {
        let (piece, next) = read(at).await?;
        at = next;
        if piece.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(LOG_PAUSE) => {}
                () = left(session) => return Ok(Response::Streamed),
            }
        } else {
            session.frames.send(&Reply::Bytes(piece)).await?;
        }
    }
    Ok(Response::Now(Answer::Nothing))
}

/// Why a VM's console has nothing to say, if it may have none.
fn no_console(view: &VmView) -> Option<String> {
    let VmSpec { name, vmm, console: false, .. } = &view.record.spec else { return None };
    let runs_on = view.handles.vmm.as_deref().and_then(VmmKind::described);
    let how = "on Firecracker a VM has one if it is created with --console";
    match (runs_on, vmm) {
        (Some(VmmKind::Firecracker), _) | (None, VmmChoice::Firecracker) => {
            Some(format!("{name} has no console: {how}"))
        }
        // It may have been on either.
        (None, VmmChoice::Auto) => Some(format!("the console of {name} said nothing; {how}")),
        _ => None,
    }
}

fn note(text: String) -> EventInfo {
    let kind = EventKindInfo::Note { text };
    EventInfo { seq: 0, unix_ms: 0, op_id: None, vm_id: None, kind }
}

fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = match lines {
        0 => text.len(),
        _ => breaks.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0),
    };
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_counts_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(last_lines(text, 2), b"two\nthree\n");
        assert_eq!(last_lines(text, 9), text);
        assert_eq!(last_lines(text, 0), b"");
        assert_eq!(last_lines(b"one\ntwo", 1), b"two");
        assert_eq!(last_lines(b"", 1), b"");
    }

    #[test]
    fn the_ladder_tells_each_step_once() {
        let entry = |step: &str, event, unix_ms| Entry { step: step.to_owned(), event, unix_ms };
        let ladder = ladder(&[
            entry("a", StepEvent::Started, 1),
            entry("a", StepEvent::Succeeded(String::new()), 2),
            entry("b", StepEvent::Started, 2),
            entry("b", StepEvent::Failed("no".into()), 5),
            entry("b", StepEvent::UndoStarted, 6),
            entry("b", StepEvent::UndoFinished, 7),
        ]);
        let status: Vec<_> = ladder.iter().map(|rung| (rung.step.as_str(), rung.status)).collect();
        assert_eq!(status, [("a", StepStatus::Done), ("b", StepStatus::Undone)]);
        assert_eq!((ladder[1].started_unix_ms, ladder[1].ended_unix_ms), (Some(2), Some(5)));
        assert_eq!(ladder[1].error.as_deref(), Some("no"));
    }
}
