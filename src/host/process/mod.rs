//! Processes as this host sees them, without privilege.

mod pidfd;

pub use pidfd::{ended, is_alive};
