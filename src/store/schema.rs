//! Which tables there are. Adding one is a migration (`migrate/`): tables are made at every open,
//! but what fills them for older stores is not.

use heed::types::Bytes;
use heed::{CommitOrAbort, Env, RoTxn, WithoutTls};

use super::StoreError;
use super::image_kernels::KernelWish;
use super::meta::Fact;
use super::table::{RawDb, Table};
use super::taps::TapLease;
use super::workspaces::Piece;
use crate::model::{
    Entry, Event, ImageConfig, ImageRecord, ImageUse, KernelFeatures, KernelRecord, LedgerRow,
    OpRecord, VmHandles, VmRecord, Workspace,
};

pub(super) const NB_DBS: u32 = 18;

#[derive(Clone, Copy, Debug)]
pub(super) struct Dbs {
    pub(super) meta: Table<Fact>,
    pub(super) vms: Table<VmRecord>,
    /// Name and address to VM id: raw bytes both ways, no version needed.
    pub(super) vm_names: RawDb,
    pub(super) vm_addresses: RawDb,
    pub(super) handles: Table<VmHandles>,
    pub(super) ops: Table<OpRecord>,
    pub(super) journal: Table<Entry>,
    pub(super) taps: Table<TapLease>,
    pub(super) images: Table<ImageRecord>,
    pub(super) kernels: Table<KernelRecord>,
    pub(super) events: Table<Event>,
    pub(super) ledger: Table<LedgerRow>,
    pub(super) workspaces: Table<Workspace>,
    pub(super) manifests: Table<Piece>,
    pub(super) image_configs: Table<ImageConfig>,
    pub(super) image_uses: Table<ImageUse>,
    pub(super) kernel_features: Table<KernelFeatures>,
    pub(super) image_kernels: Table<KernelWish>,
}

impl Dbs {
    #[allow(clippy::disallowed_methods, reason = "the writer thread does not exist yet")]
    pub(super) fn create(env: &Env<WithoutTls>) -> Result<Self, StoreError> {
        let created = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let mut make = |name| opener.create_database::<Bytes, Bytes>(txn, Some(name));
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit([
                make("meta")?,
                make("vms")?,
                make("vm-names")?,
                make("vm-addresses")?,
                make("handles")?,
                make("ops")?,
                make("journal")?,
                make("taps")?,
                make("images")?,
                make("kernels")?,
                make("events")?,
                make("ledger")?,
                make("workspaces")?,
                make("manifests")?,
                make("image-configs")?,
                make("image-uses")?,
                make("kernel-features")?,
                make("image-kernels")?,
            ]))
        })?;
        let [
            meta,
            vms,
            vm_names,
            vm_addresses,
            handles,
            ops,
            journal,
            taps,
            images,
            kernels,
            events,
            ledger,
            workspaces,
            manifests,
            image_configs,
            image_uses,
            kernel_features,
            image_kernels,
        ] = created.unwrap_commit();
        Ok(Self {
            meta: Table::new("meta", meta),
            vms: Table::new("vms", vms),
            vm_names,
            vm_addresses,
            handles: Table::new("handles", handles),
            ops: Table::new("ops", ops),
            journal: Table::new("journal", journal),
            taps: Table::new("taps", taps),
            images: Table::new("images", images),
            kernels: Table::new("kernels", kernels),
            events: Table::new("events", events),
            ledger: Table::new("ledger", ledger),
            workspaces: Table::new("workspaces", workspaces),
            manifests: Table::new("manifests", manifests),
            image_configs: Table::new("image-configs", image_configs),
            image_uses: Table::new("image-uses", image_uses),
            kernel_features: Table::new("kernel-features", kernel_features),
            image_kernels: Table::new("image-kernels", image_kernels),
        })
    }

    /// What the rows of all tables take, without pages that are free again.
    pub(super) fn used_bytes(&self, txn: &RoTxn<'_, WithoutTls>) -> heed::Result<usize> {
        let tables = [
            self.meta.raw,
            self.vms.raw,
            self.vm_names,
            self.vm_addresses,
            self.handles.raw,
            self.ops.raw,
            self.journal.raw,
            self.taps.raw,
            self.images.raw,
            self.kernels.raw,
            self.events.raw,
            self.ledger.raw,
            self.workspaces.raw,
            self.manifests.raw,
            self.image_configs.raw,
            self.image_uses.raw,
            self.kernel_features.raw,
            self.image_kernels.raw,
        ];
        tables.iter().map(|table| Ok(table.stat(txn)?.non_free_page_size())).sum()
    }
}
