//! Processes as this host sees them, without privilege.

mod pidfd;
mod usage;

pub use pidfd::{boot_id, ended, is_alive, is_stopped};
pub use usage::usage;
