//! Firecracker as a VMM.
//!
//! Its command line names a socket and the VM; everything else is said over that socket, in
//! `machine`'s order, after the process was started. Nothing is kept here that a restart of the
//! daemon would lose: whether a guest runs is asked of the process. Starting, watching and ending
//! it is the ProcessHost's work and must not be done here.

mod adapter;
mod client;
mod machine;
mod memory;
pub(in crate::host) mod metrics;
pub mod types;
mod version;

pub use adapter::Firecracker;
