//! VMs on Firecracker, by daemon and helper: the fake one, which fails as it is told, and a real
//! one where there is one and it can run guests.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Host, Settings, Vmm, new_host, until};

fn on(vmm: Vmm, faults: &str, config: &str) -> Settings {
    let config = config.to_owned();
    Settings { firecracker: Some((vmm, faults.to_owned())), config, ..Settings::default() }
}

fn failing(faults: &str) -> Settings {
    on(Vmm::Fake, faults, "")
}

fn pid(shown: &Value) -> Pid {
    Pid::from_raw(i32::try_from(shown["pid"].as_u64().unwrap()).unwrap())
}

/// Whatever force it takes to end a guest is told.
fn stop_gracefully(host: &Host) {
    let stopped = host.banger(&["vm", "stop", "web"]).expect(0);
    assert!(!stopped.stderr.contains("ended"), "{}", stopped.stderr);
}

fn stats(host: &Host) -> Value {
    let text = host.banger(&["vm", "stats", "--json", "web"]).ok();
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

/// Made, looked at, stopped, started, killed from outside, killed, deleted; and nothing is left.
fn a_whole_life(vmm: Vmm) {
    let host = new_host!(on(vmm, "", ""));
    let before = host.world();
    host.banger(&["vm", "create", "--name", "web", "--nat"]).ok();
    let shown = host.show("web");
    let told = shown["vmm"].as_str().unwrap();
    assert!(told.starts_with("firecracker 1."), "{told}");
    assert!(told.contains("(kvm: the CPU shows ") && told.ends_with("/dev/kvm opens)"), "{told}");
    assert_eq!(host.guests().len(), 1);

    let counted = stats(&host);
    assert!(counted["cpu_percent"].as_f64().unwrap() < 400.0, "{counted:#}");
    assert!(counted["resident_bytes"].as_u64().unwrap() > 1 << 20, "{counted:#}");
    assert!(counted["root_disk_bytes"].as_u64().unwrap() > 0, "{counted:#}");
    let read = |stats: &Value| stats["devices"]["disk_read_bytes"].as_u64().unwrap();
    assert!(read(&counted) > 0, "{counted:#}");
    assert!(read(&stats(&host)) >= read(&counted), "asked again it has not begun anew");

    stop_gracefully(&host);
    assert!(host.guests().is_empty());
    host.banger(&["vm", "start", "web"]).ok();
    kill(pid(&host.show("web")), Signal::SIGKILL).unwrap();
    until("crashed", Duration::from_secs(10), || host.show("web")["state"] == "crashed");
    host.banger(&["vm", "start", "web"]).ok();
    host.banger(&["vm", "kill", "web"]).ok();
    assert!(host.guests().is_empty());
    host.banger(&["vm", "start", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

/// Suspended and resumed, twice; then what cannot be loaded leaves it suspended.
fn a_nap(vmm: Vmm) {
    let host = new_host!(on(vmm, "", ""));
    let before = host.world();
    host.banger(&["vm", "create", "--name", "web", "--memory", "128M"]).ok();
    let boot = host.show("web")["guest_boot_id"].clone();
    let id = host.show("web")["id"].as_str().unwrap().to_owned();
    let saved = host.dir.join(format!("s/vms/{id}/saved"));
    for verb in ["resume", "start"] {
        host.banger(&["vm", "suspend", "web"]).ok();
        assert_eq!(host.show("web")["state"], "suspended");
        assert!(host.guests().is_empty());
        let by = std::fs::read_to_string(saved.join("by")).unwrap();
        assert!(by.starts_with("firecracker 1.") && by.ends_with(" kvm\n"), "{by}");
        let memory = std::fs::metadata(saved.join("memory")).unwrap();
        assert_eq!(memory.len(), 128 << 20);
        assert!(memory.blocks() * 512 < 100 << 20, "{} blocks", memory.blocks());
        host.banger(&["vm", verb, "web"]).ok();
        assert!(!saved.exists(), "used once");
        let shown = host.show("web");
        assert_eq!((&shown["state"], &shown["guest_boot_id"]), (&"running".into(), &boot));
    }
    host.banger(&["vm", "suspend", "web"]).ok();
    let state = std::fs::read(saved.join("state")).unwrap();
    std::fs::write(saved.join("state"), "nonsense").unwrap();
    let refused = host.banger(&["vm", "resume", "web"]).expect(1);
    assert!(refused.stderr.contains("Load snapshot error"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--discard-memory web"), "{}", refused.stderr);
    assert_eq!(host.show("web")["state"], "suspended");
    assert!(host.guests().is_empty());
    std::fs::write(saved.join("state"), state).unwrap();
    std::fs::write(saved.join("by"), "firecracker 1.0.0 kvm\n").unwrap();
    let refused = host.banger(&["vm", "resume", "web"]).expect(1);
    assert!(refused.stderr.contains("saved by firecracker 1.0.0 kvm"), "{}", refused.stderr);
    host.banger(&["vm", "start", "--discard-memory", "web"]).ok();
    assert_ne!(host.show("web")["guest_boot_id"], boot);
    host.banger(&["vm", "suspend", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn a_nap_on_the_fake_one() {
    a_nap(Vmm::Fake);
}

#[test]
fn a_nap_on_a_real_one() {
    if let Some(real) = Vmm::real_with_guests() {
        a_nap(real);
    }
}

#[test]
fn a_suspend_that_firecracker_refuses_is_taken_back() {
    let host = new_host!(failing("refuse /snapshot/create no room"));
    host.banger(&["vm", "create", "--name", "web"]).ok();
    let shown = host.show("web");
    let refused = host.banger(&["vm", "suspend", "web"]).expect(1);
    assert!(refused.stderr.contains("no room"), "{}", refused.stderr);
    let after = host.show("web");
    assert_eq!((&after["state"], &after["pid"]), (&"running".into(), &shown["pid"]));
    stop_gracefully(&host);
}

#[test]
fn a_life_on_the_fake_one() {
    a_whole_life(Vmm::Fake);
}

#[test]
fn a_life_on_a_real_one() {
    if let Some(real) = Vmm::real_with_guests() {
        a_whole_life(real);
    }
}

#[test]
fn daemon_and_helper_may_be_killed_under_it() {
    let mut host = new_host!(failing(""));
    let before = host.world();
    host.banger(&["vm", "create", "--name", "web"]).ok();
    let counted = stats(&host);
    let pid = host.show("web")["pid"].clone();
    host.kill_daemon();
    host.kill_helper();
    assert_eq!(host.guests().len(), 1, "the guest lives on");
    host.start_helper();
    host.start_daemon();
    let shown = host.show("web");
    assert_eq!((&shown["state"], &shown["pid"]), (&"running".into(), &pid));
    let devices = |stats: &Value| stats["devices"]["disk_read_bytes"].clone();
    assert_eq!(devices(&stats(&host)), devices(&counted), "nothing of its counters was lost");
    stop_gracefully(&host);
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

/// Faults of a start, and what of them the user reads.
#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let host = new_host!(on(Vmm::Fake, "", "boot_timeout = \"2s\""));
    let before = host.world();
    let table = [
        ("refuse /drives/d1 The disk is on strike.", "The disk is on strike. (HTTP 400)"),
        ("refuse InstanceStart Start microvm error: no KVM today", "no KVM today"),
        ("die InstanceStart 148", "exit status 148"),
        ("die /machine-config 1", "exit status 1"),
        ("guest silent", "not ready within 2"),
        ("guest fails disks: no such disk", "boot failed at disks: no such disk"),
    ];
    for (faults, said) in table {
        host.plan_faults(faults);
        let failed = host.banger(&["vm", "create", "--name", "web"]).expect(1);
        let stderr = &failed.stderr;
        assert!(stderr.contains(said), "{faults}: {stderr}");
        assert!(stderr.contains("(op-") && stderr.contains("hint: "), "{faults}: {stderr}");
        assert!(host.guests().is_empty(), "{faults}");
        assert_eq!(host.show("web")["state"], "stopped", "{faults}");
        host.plan_faults("");
        host.banger(&["vm", "start", "web"]).ok();
        host.banger(&["vm", "delete", "web"]).ok();
        until("nothing is left", Duration::from_secs(20), || host.world() == before);
    }
}

#[test]
fn a_slow_api_is_waited_for() {
    let host = new_host!(failing("slow * 150"));
    host.banger(&["vm", "create", "--name", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
}

#[test]
fn a_guest_that_does_not_listen_is_stopped_all_the_same() {
    let host = new_host!(failing(""));
    let stop = ["vm", "stop", "--grace", "300ms", "web"];
    for (faults, said) in [
        ("ignore shutdown", "ended when its power button was pressed"),
        ("ignore shutdown\nignore ctrl-alt-del", "ended by force"),
        ("ignore shutdown\nlose socket", "ended by force"),
    ] {
        host.plan_faults(faults);
        host.banger(&["vm", "create", "--name", "web"]).ok();
        let stopped = host.banger(&stop).expect(0);
        assert!(stopped.stderr.contains(said), "{faults}: {}", stopped.stderr);
        assert!(host.guests().is_empty(), "{faults}");
        host.banger(&["vm", "delete", "web"]).ok();
    }
}

#[test]
fn without_its_socket_a_vm_is_seen_and_stopped() {
    let host = new_host!(failing("lose socket"));
    host.banger(&["vm", "create", "--name", "web"]).ok();
    let counted = stats(&host);
    assert!(counted["resident_bytes"].as_u64().unwrap() > 0, "{counted:#}");
    stop_gracefully(&host);
    host.banger(&["vm", "delete", "web"]).ok();
}

#[test]
fn a_console_is_there_when_it_was_asked_for() {
    let host = new_host!(failing(""));
    host.banger(&["vm", "create", "--name", "web"]).ok();
    let none = host.banger(&["vm", "logs", "web"]).expect(0);
    let why = "web has no console: on Firecracker a VM has one if it is created with --console\n";
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", why));
    host.banger(&["vm", "create", "--name", "loud", "--console"]).ok();
    let said = host.banger(&["vm", "logs", "loud"]).expect(0);
    assert!(said.stdout.contains("A played guest boots."), "{}", said.stdout);
    assert_eq!(said.stderr, "");
    host.banger(&["vm", "restart", "loud"]).ok();
    let said = host.banger(&["vm", "logs", "loud"]).ok();
    assert_eq!(said.matches("A played guest boots.").count(), 2, "{said}");
    host.banger(&["vm", "delete", "web", "loud"]).ok();
}

#[test]
fn the_doctor_knows_which_versions_serve() {
    for (version, code, said) in [
        ("1.11.2", 1, "firecracker 1.11.2 is older than 1.12, the oldest that serves"),
        ("1.18.0", 0, "firecracker 1.18.0 is newer than 1.17, the newest that was tried"),
        ("1.16.1", 0, "firecracker 1.16.1 (kvm: the CPU shows svm and /dev/kvm opens)"),
    ] {
        let host = new_host!(failing(&format!("version {version}")));
        let report = host.banger(&["doctor"]).expect(code).stdout;
        let line = report.lines().find(|line| line.contains("firecracker 1.")).unwrap_or(&report);
        assert!(line.contains(said), "{line}");
    }
}
