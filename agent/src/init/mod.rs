//! The machine: everything PID 1 does before it hands over, and what it does if it stays.

mod adopt;
mod boot;
mod directories;
mod disks;
mod grow;
mod handover;
mod identity;
mod modules;
mod mounts;
mod net;
mod poweroff;
mod reaper;
mod skeleton;

pub(crate) use adopt::adopt;
pub(crate) use boot::run;
pub(crate) use directories::make_directories;
pub(crate) use poweroff::{InitKind, Storage, finish, request};
