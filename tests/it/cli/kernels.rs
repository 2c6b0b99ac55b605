//! What is known of kernels, and what becomes of VMs that they cannot boot.

use super::simulated::{json, place};
use crate::support::banger::Finish;

/// Has all that every VM needs.
const ENOUGH: &str = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_UNIX=y\nCONFIG_INET=y\n\
    CONFIG_ACPI=y\nCONFIG_PVH=y\nCONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_NET=y\n\
    CONFIG_VIRTIO_CONSOLE=y\nCONFIG_VIRTIO_VSOCKETS=y\nCONFIG_EXT4_FS=y\n";

#[test]
fn a_vm_that_its_kernel_cannot_boot_is_refused_before_anything_is_made() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    std::fs::write(here.path().join("bare.deb"), ENOUGH).unwrap();
    let said = run("kernel import bare bare.deb");
    assert_eq!((said.code, said.out.as_str()), (0, "bare\n"), "{}", said.err);
    let lacks = "bare lacks CONFIG_OVERLAY_FS, which VMs with an overlay root need\n";
    assert!(said.err.contains(lacks), "{}", said.err);
    let said = run("vm create --no-start --name web --kernel bare");
    assert_eq!(said.code, 1, "{}", said.err);
    let refused = "create web: kernel \"bare\" lacks CONFIG_OVERLAY_FS, which VMs with";
    assert!(said.err.contains(refused), "{}", said.err);
    assert!(said.err.contains("banger kernel show bare"), "{}", said.err);
    assert_eq!(run("vm list -q").out, "");
    assert_eq!(run("ops list").out.matches("vm-create").count(), 0, "no operation was begun");
    // Without an overlay it does, and it is the newest: the refusal is of what would be booted.
    let said = run("vm create --no-start --name web");
    assert!(said.code == 1 && said.err.contains("kernel \"bare\""), "{}", said.err);
    let said = run("vm create --no-start --name web --disk reflink");
    assert_eq!(said.code, 0, "{}", said.err);
    // Nothing is refused for what is not known.
    assert_eq!(run("vm create --name old --kernel k -q").code, 0);
    assert_eq!(run("vm stop old -q").code, 0);
    // Known now: the same file, which says more.
    std::fs::write(here.path().join("k.deb"), ENOUGH).unwrap();
    assert_eq!(run("kernel import k k.deb -q").code, 0);
    let said = run("vm start old");
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("resolve-boot: boot kernel k: it lacks CONFIG_OVERLAY_FS"),
        "{}",
        said.err
    );
}

#[test]
fn features_of_a_kernel_are_shown_with_what_they_are_for() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    let text = format!("{ENOUGH}CONFIG_OVERLAY_FS=y\nCONFIG_SQUASHFS=m\n");
    std::fs::write(here.path().join("good.deb"), text).unwrap();
    let said = run("kernel import good good.deb");
    assert!(said.code == 0 && !said.err.contains("lacks"), "{}", said.err);
    let said = run("kernel show good");
    assert_eq!(said.code, 0, "{}", said.err);
    let row = |option: &str| {
        let row = said.out.lines().find(|line| line.starts_with(&format!("{option} ")));
        row.unwrap_or_else(|| panic!("{}", said.out)).split("  ").collect::<Vec<_>>().concat()
    };
    assert!(said.out.starts_with("name      good\n"), "{}", said.out);
    for (option, rest) in [
        ("OPTION", "GUESTSFORNEEDED BY"),
        ("CONFIG_OVERLAY_FS", "yesoverlay roots, containersVMs with an overlay root"),
        ("CONFIG_SQUASHFS", "module-left-outsquashfs mounts-"),
        ("CONFIG_EROFS_FS", "noEROFS mounts-"),
    ] {
        let row = row(option).replace(' ', "");
        assert_eq!(row, format!("{option}{rest}").replace(' ', ""), "{}", said.out);
    }
    let shown = json(&run("kernel show good --json"));
    assert_eq!((&shown["name"], &shown["version"]), (&"good".into(), &"0.0.0-sim".into()));
    let features = shown["features"].as_array().unwrap();
    let of = |option: &str| features.iter().find(|one| one["option"] == option).unwrap().clone();
    assert_eq!(of("CONFIG_OVERLAY_FS")["support"], "yes");
    assert_eq!(of("CONFIG_SQUASHFS")["needed_by"], serde_json::json!([]));
    // Of one that does not say how it was configured.
    let shown = json(&run("kernel show k --json"));
    let features = shown["features"].as_array().unwrap();
    assert!(features.iter().all(|one| one["support"] == "unknown"), "{shown}");
    assert_eq!(run("kernel show nope").code, 4);
}
