//! QEMU's `microvm` machine as a VMM.
//!
//! Holds only what does not change while the daemon runs: where the binary is, its version, and
//! the rate of the host's time stamp counter. Starting, watching and ending the process is the
//! ProcessHost's work and must not be done here.

mod adapter;
mod command;
mod memory;
mod monitor;
mod qmp;
mod tsc;
mod version;

pub use adapter::Qemu;
