//! Things that a daemon could say.

use banger::model::{Digest, OpId};
use std::sync::Mutex;

use banger::wire::reply::{
    Answer, EventInfo, EventKindInfo, FailureInfo, OpInfo, Reply, StepInfo, VmInfo, WorkspaceInfo,
};
use banger::wire::request::{Request, Workspace};

use crate::support::canned::Say;

pub(super) const OP: OpId = OpId([0xab; 16]);

pub(super) fn s(text: &str) -> String {
    text.to_owned()
}

pub(super) fn vm(name: &str, state: &str) -> VmInfo {
    // Ids that differ from the first digit on.
    let digit = name.bytes().fold(0_u8, u8::wrapping_add) % 16;
    VmInfo {
        id: format!("{digit:x}").repeat(32),
        name: s(name),
        state: s(state),
        generation: 1,
        image: s("debian-bookworm"),
        image_digest: "d".repeat(64),
        kernel: s("debian-6.1"),
        kernel_digest: "e".repeat(64),
        address: s("172.16.0.5"),
        mac: s("02:ba:00:00:00:05"),
        vcpu: 2,
        memory_mib: 512,
        disk_bytes: 8 << 30,
        work_disk_bytes: 8 << 30,
        nat: false,
        env_names: vec![],
        created_unix_ms: 0,
        busy: None,
        vmm: None,
        pid: None,
        tap: None,
        guest_boot_id: None,
        host_key: s("ssh-ed25519 AAAA"),
        last_failure: None,
        last_exit: None,
    }
}

pub(super) fn op(kind: &str, subject: &str, outcome: &str) -> OpInfo {
    OpInfo {
        id: OP.to_string(),
        kind: s(kind),
        subject: s(subject),
        vm_id: None,
        started_unix_ms: 1_700_000_000_000,
        ended_unix_ms: Some(1_700_000_001_500),
        outcome: s(outcome),
        step: None,
        cause: None,
        undo: None,
        steps: vec![],
    }
}

pub(super) fn step(name: &str, status: &str, at: u64, took: u64) -> StepInfo {
    let started = 1_700_000_000_000 + at;
    StepInfo {
        step: s(name),
        status: s(status),
        started_unix_ms: Some(started),
        ended_unix_ms: Some(started + took),
        error: (status == "failed").then(|| s("no room")),
    }
}

pub(super) fn failure(code: &str, message: &str) -> FailureInfo {
    FailureInfo {
        code: s(code),
        message: s(message),
        hints: vec![],
        retryable: false,
        op_id: Some(OP.to_string()),
        detail: vec![],
    }
}

pub(super) fn event(op_id: [u8; 16], kind: EventKindInfo) -> Reply {
    let op_id = Some(OpId(op_id).to_string());
    Reply::Event(EventInfo { seq: 0, unix_ms: 1_700_000_000_123, op_id, vm_id: None, kind })
}

pub(super) fn step_done(op_id: [u8; 16], step: &str) -> Reply {
    event(op_id, EventKindInfo::StepDone { step: s(step), elapsed_us: 12_345 })
}

pub(super) fn ended(op: OpInfo, vm: Option<VmInfo>) -> Reply {
    Reply::Done(Answer::Ended { op: Box::new(op), vm: vm.map(Box::new) })
}

/// What a daemon keeps of the one VM's workspace.
#[derive(Default)]
pub(super) struct Workspaces(Mutex<Keeping>);

#[derive(Default)]
struct Keeping {
    upload: Vec<u8>,
    kept: Option<(Workspace, Vec<u8>)>,
}

impl Workspaces {
    pub(super) fn knows(&self, request: &Request) -> bool {
        use Request as R;
        let one = matches!(request, R::ShowWorkspaces { .. } | R::ShowManifest { .. });
        one || matches!(request, R::ManifestPiece { .. } | R::RecordWorkspace { .. })
    }

    pub(super) fn answer(&self, request: &Request) -> Vec<Say> {
        let Keeping { upload, kept } = &mut *self.0.lock().unwrap();
        let mut said = vec![];
        let answer = match request {
            Request::ManifestPiece { bytes } => {
                upload.extend_from_slice(bytes);
                Answer::Nothing
            }
            Request::RecordWorkspace { workspace, .. } => {
                *kept = Some((workspace.clone(), std::mem::take(upload)));
                Answer::Nothing
            }
            Request::ShowManifest { .. } => {
                let manifest = kept.as_ref().map(|(_, manifest)| manifest.clone());
                said.extend(manifest.map(|bytes| Say::Reply(Reply::Bytes(bytes))));
                Answer::Nothing
            }
            _ => Answer::Workspaces(kept.iter().map(|(kept, _)| info(kept)).collect()),
        };
        said.push(Say::Reply(Reply::Done(answer)));
        said
    }
}

fn info(kept: &Workspace) -> WorkspaceInfo {
    let kept = kept.clone();
    WorkspaceInfo {
        id: vm("web", "running").id,
        guest_path: kept.guest_path,
        host_path: kept.host_path,
        head: kept.head,
        branch: kept.branch,
        mode: kept.mode,
        include_untracked: kept.include_untracked,
        exclude: kept.exclude,
        include_ignored: kept.include_ignored,
        files: kept.files,
        bytes: kept.bytes,
        manifest: Digest(kept.manifest).to_string(),
        prepared_unix_ms: 0,
    }
}
