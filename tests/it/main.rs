//! Fast tests over the whole tree: no KVM, no root, no network beyond loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should end")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod boundaries;
mod cli;
mod gateway;
mod notify;
mod package;
mod support;
mod wire_compat;
mod workspace;
