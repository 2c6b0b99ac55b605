//! Real adapters of the ports: what touches this host and its guests.

pub mod clock;
pub mod descriptors;
pub mod disk;
pub mod facts;
mod files;
pub mod guest;
pub mod helper_client;
pub mod image;
pub mod memory;
pub mod names;
pub mod process;
pub mod vmm;
pub mod warm;
pub mod workspace;
