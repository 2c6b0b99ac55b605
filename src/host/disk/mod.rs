//! A VM's private files: sparse ext4 disks from a template, configuration drive, logs.

mod check;
mod choose;
mod local;
mod logs;
mod mapped;
mod reflink;
mod saved;
mod sparse;
mod superblock;
mod survey;
mod template;

pub use local::LocalDisks;
pub(in crate::host) use sparse::{copy as copy_sparse, punch_zeros, write_sparse};
pub(in crate::host) use superblock::Superblock;
