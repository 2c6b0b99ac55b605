//! `banger gc` and `banger vm recover` against the real daemon on a simulated host.

use super::simulated::{json, place};
use crate::support::banger::Finish;

#[test]
fn a_host_that_agrees_with_its_ledger_says_so() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --name web --nat -q").code, 0);
    let said = run("gc");
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (0, "", "ledger and host agree\n")
    );
    assert_eq!(run("gc --json").out, "[]\n");
    let said = run("gc --yes");
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    assert!(said.err.contains("ledger and host agree"), "{}", said.err);
    assert!(run("ops list").out.lines().any(|line| line.contains("unchanged")));
    assert!(run("doctor").out.contains("and they agree"), "{}", run("doctor").out);
    let rows = &json(&run("vm show web"))["ledger"];
    let kinds: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["nat-rule", "process", "cgroup", "run-dir", "vm-dir", "config-drive", "tap"],
        "{rows:#}"
    );
    assert!(rows[0]["op_id"].as_str().unwrap().starts_with("op-"), "{rows:#}");
}

#[test]
fn a_vm_that_is_well_is_left_alone_and_one_in_error_is_not() {
    let faults = "--sim-fault guest.await_ready:0=refuse --sim-fault process.ensure_gone=refuse";
    let (daemon, here) = place(faults);
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    assert_eq!(run("vm create --no-start --name web -q").code, 0);
    let said = run("vm recover web");
    assert_eq!(said.code, 0);
    assert_eq!(said.out, "web is created; nothing is wrong with it\n");
    assert_eq!(run("vm start web").code, 1);
    let said = run("vm recover web");
    assert_eq!(said.code, 1, "{}", said.out);
    let lines: Vec<_> = said.out.lines().collect();
    assert!(lines[0].starts_with("web is in error (stuck): "), "{}", said.out);
    assert!(lines[1].contains(" is stuck at spawn-vmm: "), "{}", said.out);
    assert_eq!(lines[2..4], ["`--yes` would:", "  1. end what runs of it"], "{}", said.out);
    assert_eq!(json(&run("vm recover web --json"))["action"], "clean-up");
    // As long as it cannot be ended, it cannot be recovered either, and says so.
    let said = run("vm recover web --yes");
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.err.contains("kill-vmm: simulate process.ensure_gone: refused"), "{}", said.err);
    assert_eq!(run("vm recover nobody").code, 4);
}
