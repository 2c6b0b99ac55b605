//! Workspaces on record: the CLI prepares them in the guest, and what it prepared is kept here.
//!
//! What must not be done here: reading a repository or a manifest. Both are the CLI's.

use sha2::{Digest as _, Sha256};

use super::answers::parts;
use super::house::House;
use super::session::{Refusal, Response, Session};
use super::supervisor::ListVms;
use crate::model::{Code, Digest, Failure, OpId, Selection, VmId, Workspace, WorkspaceMode};
use crate::wire::reply::{Answer, Reply, WorkspaceInfo};
use crate::wire::request as wire;

/// A million files and more.
const MANIFEST_LIMIT: usize = 64 << 20;

/// A manifest on its way, of one connection. Nothing is kept of one that is not recorded.
#[derive(Debug, Default)]
pub(super) struct Upload(Vec<u8>);

pub(super) fn take(session: &mut Session<'_>, bytes: &[u8]) -> Result<Response, Refusal> {
    let upload = &mut session.manifest.0;
    if upload.len() + bytes.len() > MANIFEST_LIMIT {
        let message = format!("a manifest of more than {} MiB", MANIFEST_LIMIT >> 20);
        return Err(Failure::new(Code::Invalid, message).into());
    }
    upload.extend_from_slice(bytes);
    Ok(Response::Now(Answer::Nothing))
}

pub(super) async fn record(
    session: &mut Session<'_>,
    vm: &str,
    asked: wire::Workspace,
) -> Result<Response, Refusal> {
    let manifest = std::mem::take(&mut session.manifest.0);
    let house = session.house;
    let view = house.find(session.op_id, vm).await?.view;
    let invalid = |what: &str| Failure::new(Code::Invalid, format!("record a workspace: {what}"));
    if <[u8; 32]>::from(Sha256::digest(&manifest)) != asked.manifest {
        return Err(invalid("its manifest is not the one that is named").into());
    }
    let mode = match asked.mode.as_str() {
        "shallow" => WorkspaceMode::Shallow,
        "full_copy" => WorkspaceMode::FullCopy,
        other => return Err(invalid(&format!("{other:?} is no mode")).into()),
    };
    let workspace = Workspace {
        guest_path: asked.guest_path,
        host_path: asked.host_path,
        head: asked.head,
        branch: asked.branch,
        mode,
        selection: Selection {
            include_untracked: asked.include_untracked,
            exclude: asked.exclude,
            include_ignored: asked.include_ignored,
        },
        files: asked.files,
        bytes: asked.bytes,
        manifest: Digest(asked.manifest),
        prepared_unix_ms: session.op_id.unix_millis(),
    };
    let recorded = house.store.record_workspace(view.record.id, workspace, manifest).await;
    recorded.map_err(|error| Failure::from(&error))?;
    Ok(Response::Now(Answer::Nothing))
}

pub(super) async fn show(house: &House, op_id: OpId, vms: &[String]) -> Result<Response, Refusal> {
    let mut ids = vec![];
    for vm in vms {
        ids.push(house.find(op_id, vm).await?.view.record.id);
    }
    if vms.is_empty() {
        let views = house.supervisor.call(house.ctx(op_id), ListVms).await?;
        ids = views.iter().map(|view| view.record.id).collect();
    }
    let mut rows = vec![];
    for id in ids {
        let workspace = house.store.workspace(id).map_err(|error| Failure::from(&error))?;
        rows.extend(workspace.map(|workspace| info(id, workspace)));
    }
    Ok(parts(rows, Answer::Workspaces))
}

pub(super) async fn manifest(session: &mut Session<'_>, vm: &str) -> Result<Response, Refusal> {
    let id = session.house.find(session.op_id, vm).await?.view.record.id;
    let pieces = session.house.store.manifest(id).map_err(|error| Failure::from(&error))?;
    for piece in pieces {
        session.frames.send(&Reply::Bytes(piece)).await?;
    }
    Ok(Response::Now(Answer::Nothing))
}

fn info(id: VmId, workspace: Workspace) -> WorkspaceInfo {
    WorkspaceInfo {
        id: id.to_string(),
        guest_path: workspace.guest_path,
        host_path: workspace.host_path,
        head: workspace.head,
        branch: workspace.branch,
        mode: workspace.mode.as_str().to_owned(),
        include_untracked: workspace.selection.include_untracked,
        exclude: workspace.selection.exclude,
        include_ignored: workspace.selection.include_ignored,
        files: workspace.files,
        bytes: workspace.bytes,
        manifest: workspace.manifest.to_string(),
        prepared_unix_ms: workspace.prepared_unix_ms,
    }
}
