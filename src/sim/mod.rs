//! A simulated host: a fake of every port over one [`World`], for tests and for `bangerd --sim`.
//!
//! A fake checks what the real adapter checks, keeps a world that compares with `==`, counts its
//! calls and fails where a plan says so. Nothing here polls and nothing touches the real host.
//! Not here: any rule about what ought to happen; that is for whoever calls.

mod clock;
mod disk;
mod fault;
mod guest;
mod hypervisor;
mod image;
mod names;
mod net;
mod options;
mod process;
mod state;
mod warm;
mod world;

#[cfg(test)]
mod sim_tests;

pub use fault::{At, Fault, ParseFaultError, Planned};
pub use options::{SimOptions, ports};
pub use state::SimWorld;
pub use world::{SimMemory, SimProcess, World};
