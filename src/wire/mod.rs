//! What crosses a process boundary or a restart.

pub mod codec;
mod convert;
pub mod frame;
pub mod hello;
pub mod helper;
mod ledger;
pub mod reply;
pub mod request;
mod upkeep;
