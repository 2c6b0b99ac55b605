//! banger: a supervisor of micro-VMs. Module declarations only; what lives where and who may
//! import whom is in `design/0001-house.md` and enforced by `tests/it/boundaries.rs`.

pub mod actors;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod helper;
pub mod host;
pub mod model;
pub mod ops;
pub mod ports;
pub mod setup;
pub mod sim;
pub mod store;
pub mod wire;
