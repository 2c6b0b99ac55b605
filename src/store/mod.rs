//! The durable store: one writer thread, short reads.
//!
//! Writes are asynchronous and answered after the commit; what belongs together is one job, hence
//! one transaction. Reads open a transaction, copy out and drop it. No transaction, no database
//! handle and no stored shape leaves this room, so none can live across an `.await` elsewhere.
//!
//! | table | key | row | lives |
//! |---|---|---|---|
//! | `vms` | VM id | record | as long as the VM |
//! | `vm-names`, `vm-addresses` | name, address | VM id | as their record; same transaction |
//! | `handles` | VM id | what exists while it runs | transient, may be lost |
//! | `ops`, `journal` | op id (+ n) | operation, its steps | the last settled ones are kept |
//! | `taps` | tap name | who leases it | from before the tap is made until after it is gone |
//! | `ledger` | VM id, kind | what it holds of the host | from before the thing is made until after it is gone |
//! | `images`, `kernels` | name | record | until deleted |
//! | `image-configs` | name | how it is run | as its image |
//! | `kernel-features` | digest | which options the kernel has | as long as a name for the contents |
//! | `image-uses` | VM id | how its image was run when it was made | as long as the VM |
//! | `events` | number | what happened | the last are kept |
//! | `workspaces`, `manifests` | VM id (+ n) | the repository sent into it, piecewise what of it | as long as the VM |
//! | `meta` | text | schema version, facts | always |
//!
//! Not here: files, the daemon's lock, any decision about a VM.

mod default_kernel;
mod error;
mod event_row;
mod events;
mod image_configs;
mod image_kernels;
mod images;
mod kernel_features;
mod ledger;
mod meta;
mod migrate;
#[cfg(test)]
pub(crate) mod mortal;
mod op_row;
mod ops;
mod pulled;
mod reserve;
mod room;
mod schema;
#[allow(clippy::module_inception, reason = "the room's one type, in a file of its own")]
mod store;
mod table;
mod taps;
mod upkeep_row;
mod vm_row;
mod vms;
mod workspaces;
mod writer;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod reserve_tests;
#[cfg(test)]
mod store_tests;

pub use error::StoreError;
pub use ops::Intent;
pub use reserve::{Reserved, VmDraft};
pub use store::Store;
pub use taps::TapLease;
