//! Virtual machine monitors: which one serves, and one folder for each.

mod accel;
mod adapter;
mod binary;
pub mod firecracker;
mod permit;
pub mod qemu;
#[cfg(test)]
mod sample;
mod select;
mod socket;

pub use accel::Accelerator;
pub use select::{VmmConfig, Vmms};
