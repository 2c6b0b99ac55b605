//! Real guests on this machine: helper as root, daemon as an ordinary user, CLI, QEMU, agent.
//!
//! Each test has a host of its own: a network namespace, a state directory, a bridge, sockets. It
//! goes when the test ends, however it ends. Without root every test says so in a line and ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should end")]
#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]
#![allow(clippy::print_stderr, reason = "skipped tests say so")]

mod commit;
mod containerfile;
mod contract;
mod copy;
mod crash;
mod firecracker;
mod forward;
mod furnish;
mod guest;
mod jobs;
mod kernels;
mod lane;
mod layers;
mod ledger;
mod lifecycle;
mod mise;
mod network;
mod openssh;
mod ops;
mod programs;
mod refusals;
mod registry;
mod support;
mod suspend;
mod terminal;
mod torture;
mod upkeep;
mod warm;
mod workspaces;
