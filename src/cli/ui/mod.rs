//! What people read: progress, tables, times and sizes.

pub(crate) mod bar;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod transfers;
