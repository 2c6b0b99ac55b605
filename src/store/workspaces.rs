//! The repositories that were sent into VMs. A record and its manifest are of one transaction; the
//! manifest is whoever sent it's own, opaque here, in pieces because no value may be large.

use heed::RwTxn;

use super::schema::Dbs;
use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::model::{Digest, Selection, VmId, Workspace, WorkspaceMode};
use crate::wire::codec::{Decode, Encode};

/// Of a manifest; well below what a value may have.
const PIECE_BYTES: usize = 512 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece(pub(super) Vec<u8>);

#[derive(Encode, Decode)]
pub(super) enum StoredPiece {
    V1(Vec<u8>),
}

#[derive(Encode, Decode)]
pub(super) enum StoredWorkspace {
    V1 {
        guest_path: String,
        host_path: String,
        head: String,
        branch: Option<String>,
        mode: StoredMode,
        include_untracked: bool,
        exclude: Vec<String>,
        include_ignored: Vec<String>,
        files: u64,
        bytes: u64,
        manifest: [u8; 32],
        prepared_unix_ms: u64,
    },
}

#[derive(Encode, Decode)]
pub(super) enum StoredMode {
    Shallow,
    FullCopy,
}

impl Row for Piece {
    type Stored = StoredPiece;
}

impl Row for Workspace {
    type Stored = StoredWorkspace;
}

impl From<Piece> for StoredPiece {
    fn from(piece: Piece) -> Self {
        Self::V1(piece.0)
    }
}

impl TryFrom<StoredPiece> for Piece {
    type Error = BadValue;

    fn try_from(stored: StoredPiece) -> Result<Self, BadValue> {
        let StoredPiece::V1(bytes) = stored;
        Ok(Self(bytes))
    }
}

impl From<Workspace> for StoredWorkspace {
    fn from(workspace: Workspace) -> Self {
        Self::V1 {
            guest_path: workspace.guest_path,
            host_path: workspace.host_path,
            head: workspace.head,
            branch: workspace.branch,
            mode: match workspace.mode {
                WorkspaceMode::Shallow => StoredMode::Shallow,
                WorkspaceMode::FullCopy => StoredMode::FullCopy,
            },
            include_untracked: workspace.selection.include_untracked,
            exclude: workspace.selection.exclude,
            include_ignored: workspace.selection.include_ignored,
            files: workspace.files,
            bytes: workspace.bytes,
            manifest: workspace.manifest.0,
            prepared_unix_ms: workspace.prepared_unix_ms,
        }
    }
}

impl TryFrom<StoredWorkspace> for Workspace {
    type Error = BadValue;

    fn try_from(stored: StoredWorkspace) -> Result<Self, BadValue> {
        let StoredWorkspace::V1 {
            guest_path,
            host_path,
            head,
            branch,
            mode,
            include_untracked,
            exclude,
            include_ignored,
            files,
            bytes,
            manifest,
            prepared_unix_ms,
        } = stored;
        let mode = match mode {
            StoredMode::Shallow => WorkspaceMode::Shallow,
            StoredMode::FullCopy => WorkspaceMode::FullCopy,
        };
        let selection = Selection { include_untracked, exclude, include_ignored };
        let manifest = Digest(manifest);
        Ok(Self {
            guest_path,
            host_path,
            head,
            branch,
            mode,
            selection,
            files,
            bytes,
            manifest,
            prepared_unix_ms,
        })
    }
}

impl Store {
    pub fn workspace(&self, vm: VmId) -> Result<Option<Workspace>, StoreError> {
        self.read(|txn, dbs| dbs.workspaces.get(txn, &vm.0))
    }

    /// In pieces; none, if the VM has no workspace.
    pub fn manifest(&self, vm: VmId) -> Result<Vec<Vec<u8>>, StoreError> {
        let pieces = self.read(|txn, dbs| dbs.manifests.with_prefix(txn, &vm.0))?;
        Ok(pieces.into_iter().map(|piece| piece.0).collect())
    }

    /// In place of what was there before.
    pub async fn record_workspace(
        &self,
        vm: VmId,
        workspace: Workspace,
        manifest: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            if !dbs.vms.has(txn, &vm.0)? {
                return Err(StoreError::NotFound { what: "VM", name: vm.short() });
            }
            remove(txn, dbs, vm)?;
            for (number, piece) in (0_u32..).zip(manifest.chunks(PIECE_BYTES)) {
                let key = [vm.0.as_slice(), &number.to_be_bytes()].concat();
                dbs.manifests.put(txn, &key, Piece(piece.to_vec()))?;
            }
            dbs.workspaces.put(txn, &vm.0, workspace)
        })
        .await
    }
}

pub(super) fn remove(txn: &mut RwTxn<'_>, dbs: &Dbs, vm: VmId) -> Result<(), StoreError> {
    dbs.workspaces.delete(txn, &vm.0)?;
    dbs.manifests.delete_prefix(txn, &vm.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;
    use crate::store::reserve_tests::{draft, stocked};

    fn workspace(head: &str) -> Workspace {
        Workspace {
            guest_path: "/root/repo".into(),
            host_path: "/home/me/repo".into(),
            head: head.into(),
            branch: Some("main".into()),
            mode: WorkspaceMode::Shallow,
            selection: Selection::default(),
            files: 2,
            bytes: 30,
            manifest: Digest([3; 32]),
            prepared_unix_ms: 9,
        }
    }

    #[tokio::test]
    async fn a_workspace_is_its_vms_and_goes_with_it() {
        let (_dir, store) = stocked().await;
        let vm = draft(7, "web").id;
        let refused = store.record_workspace(vm, workspace("a"), vec![1]).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })), "no such VM");
        store.reserve_vm(draft(7, "web")).await.unwrap();
        let long: Vec<u8> = (0..PIECE_BYTES + 7).map(|at| at.to_le_bytes()[0]).collect();
        store.record_workspace(vm, workspace("a"), long.clone()).await.unwrap();
        assert_eq!(store.manifest(vm).unwrap().concat(), long);
        store.record_workspace(vm, workspace("b"), vec![1, 2]).await.unwrap();
        assert_eq!(store.manifest(vm).unwrap(), [[1, 2]], "nothing is left of the longer one");
        assert_eq!(store.workspace(vm).unwrap(), Some(workspace("b")));
        store.delete_vm(draft(7, "web").intent.id, Outcome::Done, 9, vm).await.unwrap();
        assert_eq!(store.workspace(vm).unwrap(), None);
        assert!(store.manifest(vm).unwrap().is_empty());
    }
}
