//! One command, one file: its arguments, whose comments are the help, then one function.

pub(crate) mod completion;
pub(crate) mod daemon;
mod dispatch;
pub(crate) mod doctor;
mod download;
pub(crate) mod events;
pub(crate) mod gc;
pub(crate) mod image;
pub(crate) mod kernel;
mod make;
mod many;
pub(crate) mod ops;
pub(crate) mod parse;
mod prune;
pub(crate) mod ssh_config;
pub(crate) mod ssh_proxy;
pub(crate) mod system;
pub(crate) mod version;
pub(crate) mod vm;

pub(crate) use dispatch::run;
