//! Scenarios on a whole Debian host of their own: systemd, udev, device-mapper, `/dev/kvm`.
//!
//! The host is a virtual machine that QEMU emulates, AMD's SVM included, so the banger installed in
//! it runs its guests with KVM wherever the tests run. Each scenario gets a host of its own, restored from a
//! saved state. `design/0006-test-host.md` says why. Where it cannot run each test says so in a line.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should end")]
#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for them")]
#![allow(clippy::print_stderr, reason = "what a scenario says is shown as it comes")]

mod agent;
mod arguments;
mod cache;
mod channel;
mod commands;
mod image;
mod machine;
mod payload;
mod qmp;
mod scenario;
mod state;
#[path = "../real/support/stock.rs"]
#[allow(dead_code, reason = "shared with the tests of real guests, which need more of it")]
mod stock;

use std::time::Duration;

use scenario::{Start, scenario};

#[test]
fn the_host_has_all_that_a_real_one_has() {
    scenario(Start::Booted, include_str!("scenarios/host.sh"), Duration::from_secs(180));
}

#[test]
fn banger_installed_runs_guests_with_kvm_and_leaves_nothing() {
    scenario(Start::Installed, include_str!("scenarios/run.sh"), Duration::from_secs(300));
}

#[test]
fn a_daemon_killed_under_a_guest_comes_back_and_adopts_it() {
    scenario(Start::Installed, include_str!("scenarios/crash.sh"), Duration::from_secs(300));
}
