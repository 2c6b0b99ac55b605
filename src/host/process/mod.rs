//! Processes as this host sees them, without privilege.

mod pidfd;
mod usage;

pub use pidfd::{ended, is_alive};
pub use usage::usage;
