//! Virtual machine monitors: which one serves, and one folder for each.

mod adapter;
pub mod qemu;
mod select;

pub use select::{VmmConfig, Vmms};
