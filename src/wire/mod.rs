//! What crosses a process boundary or a restart.

pub mod codec;
pub mod helper;
