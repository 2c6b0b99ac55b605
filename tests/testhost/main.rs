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
mod package;
mod payload;
mod qmp;
mod scenario;
mod state;
#[path = "../real/support/stock.rs"]
#[allow(dead_code, reason = "shared with the tests of real guests, which need more of it")]
mod stock;

use std::path::PathBuf;
use std::time::Duration;

use scenario::{Scenario, Start};

const SHORT: Duration = Duration::from_secs(180);
const LONG: Duration = Duration::from_secs(300);

#[test]
fn the_host_has_all_that_a_real_one_has() {
    Scenario::new(Start::Booted, include_str!("scenarios/host.sh"), SHORT).run();
}

fn installed(script: &str) -> Scenario {
    Scenario::new(Start::Installed, script, LONG)
}

const RUN: &str = include_str!("scenarios/run.sh");
const CRASH: &str = include_str!("scenarios/crash.sh");

#[test]
fn banger_installed_runs_guests_with_kvm_and_leaves_nothing() {
    installed(RUN).on("qemu").run();
}

#[test]
fn banger_installed_runs_guests_on_firecracker_and_leaves_nothing() {
    installed(RUN).on("firecracker").run();
}

#[test]
fn a_daemon_killed_under_a_guest_comes_back_and_adopts_it() {
    installed(CRASH).on("qemu").run();
}

#[test]
fn a_daemon_killed_under_a_guest_of_firecracker_comes_back_and_adopts_it() {
    installed(CRASH).on("firecracker").run();
}

#[test]
fn daemon_and_helper_are_killed_again_and_again_under_guests_of_firecracker() {
    installed(include_str!("scenarios/torture.sh")).where_firecracker_is().run();
}

#[test]
fn firecracker_is_chosen_keeps_the_last_write_and_is_seen_dying() {
    installed(include_str!("scenarios/firecracker.sh")).where_firecracker_is().run();
}

#[test]
fn what_vms_take_is_counted_and_a_console_is_given_to_who_asks() {
    installed(include_str!("scenarios/stats.sh")).where_firecracker_is().run();
}

const SUSPEND: &str = include_str!("scenarios/suspend.sh");

#[test]
fn what_runs_in_a_guest_on_kvm_goes_on_after_a_suspend() {
    installed(SUSPEND).on("qemu").run();
}

#[test]
fn what_runs_in_a_guest_on_firecracker_goes_on_after_a_suspend() {
    installed(SUSPEND).on("firecracker").run();
}

#[test]
fn work_in_a_guest_of_firecracker_is_as_if_it_were_local() {
    Scenario::new(Start::Installed, include_str!("scenarios/work.sh"), 2 * LONG)
        .on("firecracker")
        .run();
}

#[test]
fn roots_share_their_images_blocks_where_the_file_system_can() {
    installed(include_str!("scenarios/reflink.sh")).run();
}

const OVERFLOW: &str = include_str!("scenarios/overflow.sh");

#[test]
fn a_vm_that_fills_its_disk_is_paused_and_goes_on_with_more() {
    Scenario::new(Start::Installed, OVERFLOW, 2 * LONG).on("qemu").run();
}

#[test]
fn a_vm_of_firecracker_that_fills_its_disk_is_paused_and_goes_on_with_more() {
    Scenario::new(Start::Installed, OVERFLOW, 2 * LONG).on("firecracker").run();
}

const SNAPSHOT: &str = include_str!("scenarios/snapshot.sh");

#[test]
fn roots_are_devices_over_their_image_and_none_is_ever_left() {
    installed(SNAPSHOT).on("qemu").run();
}

#[test]
fn roots_of_firecracker_are_devices_over_their_image_and_none_is_ever_left() {
    installed(SNAPSHOT).on("firecracker").run();
}

#[test]
fn a_vm_on_firecracker_is_nobodys_business_but_its_own() {
    installed(include_str!("scenarios/jail.sh")).on("firecracker").run();
}

#[test]
fn ten_vms_of_firecracker_go_on_from_one_memory_and_are_each_their_own() {
    let script = include_str!("scenarios/warm.sh");
    Scenario::new(Start::Installed, script, 2 * LONG).on("firecracker").run();
}

const SYSTEM: &str = include_str!("scenarios/system.sh");

#[test]
fn banger_is_restarted_killed_upgraded_and_removed_under_a_guest() {
    Scenario::new(Start::Installed, SYSTEM, 2 * LONG).on("qemu").run();
}

#[test]
fn banger_is_restarted_killed_upgraded_and_removed_under_a_guest_of_firecracker() {
    Scenario::new(Start::Installed, SYSTEM, 2 * LONG).on("firecracker").run();
}

#[test]
fn the_package_is_installed_upgraded_under_a_guest_removed_and_purged() {
    let packages = match package::Packages::build() {
        Ok(packages) => packages,
        Err(missing) => return eprintln!("skipped: {missing}"),
    };
    let script = include_str!("scenarios/package.sh");
    Scenario::new(Start::Booted, script, 2 * LONG).on("qemu").bring(packages.files.clone()).run();
}

const FAULTS: &str = include_str!("scenarios/faults.sh");

#[test]
fn what_is_done_to_the_host_is_noticed_told_and_repaired() {
    Scenario::new(Start::Installed, FAULTS, 2 * LONG).on("qemu").run();
}

#[test]
fn what_is_done_to_the_host_of_firecracker_is_noticed_told_and_repaired() {
    Scenario::new(Start::Installed, FAULTS, 2 * LONG).on("firecracker").run();
}

const REBOOT: &str = include_str!("scenarios/reboot.sh");

#[test]
fn a_host_that_is_restarted_or_loses_power_loses_no_vm() {
    Scenario::new(Start::Installed, REBOOT, 3 * LONG).on("qemu").run();
}

#[test]
fn a_host_of_firecracker_that_is_restarted_or_loses_power_loses_no_vm() {
    Scenario::new(Start::Installed, REBOOT, 3 * LONG).on("firecracker").run();
}

/// Whatever `scripts/testhost.sh` was told to run.
#[test]
fn a_scenario_given_by_the_environment() {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(path) = given("BANGER_SCENARIO") else {
        return eprintln!("skipped: BANGER_SCENARIO names no file");
    };
    let script = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let start = match given("BANGER_SCENARIO_START").as_deref() {
        None | Some("installed") => Start::Installed,
        Some("booted") => Start::Booted,
        Some(other) => panic!("BANGER_SCENARIO_START: {other} is not booted or installed"),
    };
    let limit = given("BANGER_SCENARIO_LIMIT");
    let limit = limit.map_or(LONG, |value| Duration::from_secs(value.parse().unwrap()));
    let files = given("BANGER_SCENARIO_FILES").unwrap_or_default();
    let files = std::env::split_paths(&files).filter(|path| !path.as_os_str().is_empty());
    let files = files.map(|path| path.canonicalize().unwrap_or_else(|e| panic!("{path:?}: {e}")));
    Scenario::new(start, &script, limit).bring(files.collect::<Vec<PathBuf>>()).run();
}
