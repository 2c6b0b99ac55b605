//! The root helper as it is: its binary, in a network namespace and directories of its own, asked
//! over its socket. Needs root; without it every test says so in one line and passes.

#![allow(clippy::unwrap_used, reason = "a test's helper functions are the test")]

mod fsck;
mod hostile;
mod jail;
mod loops;
mod nat;
mod network;
mod processes;
mod support;
mod survey;
