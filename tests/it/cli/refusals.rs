//! Bad input through the whole of CLI and daemon: a clear word, the right status, nothing lost.

use super::simulated::{json, place};
use crate::support::banger::Finish;

#[test]
fn what_a_vm_cannot_be_is_refused_and_leaves_no_trace() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).said();
    let taken = u32::MAX - 511; // of what the simulated host has
    let first = run(&format!("vm create --name first --memory {taken} -q"));
    assert_eq!(first.code, 0, "{}", first.err);
    let table = [
        ("--image nope --no-start", 4, "no image named \"nope\""),
        ("--image ../../etc --no-start", 1, "\"..\" names a registry that cannot be"),
        ("--kernel nope --no-start", 4, "no kernel named \"nope\""),
        ("--kernel /boot/vmlinuz --no-start", 1, "letters a-z, digits and hyphens"),
        ("--name first --no-start", 1, "first"),
        ("--vcpu 33", 1, "33 vcpu asked for, at most 32"),
        ("--memory 64M", 1, "below the least that boots, 96 MiB"),
        ("--memory 1G", 1, "1024 MiB of memory asked for (1 MiB more for the VMM), the host has"),
        ("--disk-size 1M", 1, "disk size of 1M is below the least possible, 16M"),
        ("--disk-size 129G", 1, "disk size of 129G is above the ceiling of 128G"),
        ("--work-disk-size 1T", 1, "work disk size of 1T is above the ceiling"),
        ("--vmm firecracker --no-start", 1, "firecracker"),
    ];
    for (options, code, why) in table {
        let said = run(&format!("vm create {options}"));
        assert_eq!(said.code, code, "{options}: {}", said.err);
        assert!(said.err.contains(why), "{options}: {}", said.err);
        assert!(said.err.contains("(op-"), "{options}: {}", said.err);
        assert_eq!(said.out, "", "{options}");
    }
    let left = json(&run("vm list --json"));
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!((&left[0]["name"], &left[0]["state"]), (&"first".into(), &"running".into()));
}

#[test]
fn a_disk_that_fills_up_during_an_import_loses_nothing() {
    let (daemon, here) =
        place("--sim-fault images.make_image:1=no-space --sim-fault images.make_kernel:1=no-space");
    let run = |line: &str| {
        let mut command = here.banger(&daemon.socket(), line);
        command.current_dir(here.path()).said()
    };
    std::fs::write(here.path().join("root.tar"), "").unwrap();
    for (import, list) in [
        ("image import more root.tar", "image list -q"),
        ("kernel import more k.deb", "kernel list -q"),
    ] {
        let before = run(list).out;
        let said = run(import);
        assert_eq!(said.code, 1, "{import}: {}", said.err);
        assert!(said.err.contains("no storage space"), "{import}: {}", said.err);
        assert_eq!(run(list).out, before, "{import}");
        let again = run(import);
        assert_eq!(again.code, 0, "with room again, {import}: {}", again.err);
        assert_ne!(run(list).out, before, "{import}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let (daemon, here) = place("");
    for (line, code) in [
        ("image import x ./missing.tar", 1),
        ("kernel import x ./missing.deb", 1),
        ("image delete missing", 4),
        ("kernel rm missing", 4),
        ("image show missing", 4),
        ("vm delete missing", 4),
        ("vm logs missing", 4),
        ("ops show missing", 4),
    ] {
        let said = here.banger(&daemon.socket(), line).said();
        assert_eq!(said.code, code, "{line}: {}", said.err);
        assert!(said.err.contains("missing"), "{line}: {}", said.err);
    }
}
