//! What host and guest say to each other. A guest keeps the agent it was booted with, so each
//! shape here lives as long as the oldest running guest: enums grow at their end only, and a
//! changed record is a new version beside the old one.

pub mod codec;
pub mod config;
pub mod control;
pub mod drive;
pub mod exec;
pub mod image;
pub mod job;
pub mod lane;
pub mod workspace;

#[cfg(test)]
mod golden_tests;

/// The version both sides name in `Hello` and `Ready`. Raised when a variant is added.
pub const CONTRACT_VERSION: u32 = 4;

/// The vsock port on which the agent's SSH server listens where the VMM has a vsock device.
pub const VSOCK_SSH_PORT: u32 = 22;
