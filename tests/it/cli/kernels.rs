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

#[test]
fn the_default_kernel_is_the_newest_until_one_is_set() {
    let (mut daemon, here) = place("");
    let socket = daemon.socket();
    let run = |line: &str| here.banger(&socket, line).current_dir(here.path()).said();
    let default = || {
        let said = run("kernel default");
        assert_eq!(said.code, 0, "{}", said.err);
        (said.out.trim_end().to_owned(), said.err.trim_end().to_owned())
    };
    let newest = "the newest, as none is set";
    assert_eq!(default(), ("k".to_owned(), newest.to_owned()));
    std::fs::write(here.path().join("other.deb"), "").unwrap();
    assert_eq!(run("kernel import other other.deb -q").code, 0);
    assert_eq!(default().0, "other");
    assert_eq!(run("kernel default nope").code, 4);
    assert_eq!(run("kernel default k --unset").code, 2);
    let said = run("kernel default k");
    let set = "set with `banger kernel default`\n";
    assert_eq!((said.out.as_str(), said.err.as_str()), ("k\n", set));
    assert_eq!(run("vm create --no-start --name web -q").code, 0);
    assert_eq!(json(&run("vm show web"))["kernel"], "k");
    daemon.kill();
    daemon.run();
    assert_eq!(default().0, "k", "it is durable");
    assert_eq!(json(&run("kernel default --json"))["decided_by"], "set");
    assert_eq!(run("kernel default --unset").out, "other\n");
    // The configuration wins, and says so.
    let config = "default_kernel_name = \"gone\"\n[network]\ndns_listen = \"off\"\n";
    std::fs::write(daemon.path().join("config.toml"), config).unwrap();
    daemon.kill();
    daemon.run();
    let why = "default_kernel_name in the daemon's configuration; there is no such kernel";
    assert_eq!(default(), ("gone".to_owned(), why.to_owned()));
    let said = run("kernel default k");
    assert!(said.code == 1 && said.err.contains("the configuration names gone"), "{}", said.err);
}

#[test]
fn kernels_that_no_vm_needs_go_and_the_rest_says_why_it_stays() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    for name in ["a", "b", "c"] {
        let file = format!("{name}.deb");
        std::fs::write(here.path().join(&file), "").unwrap();
        assert_eq!(run(&format!("kernel import {name} {file} -q")).code, 0);
    }
    assert_eq!(run("kernel import twin b.deb -q").code, 0);
    assert_eq!(run("vm create --no-start --name web --kernel a -q").code, 0);
    assert_eq!(run("kernel default c").code, 0);
    let dry = run("kernel prune --dry-run");
    let line = |name: &str| {
        let line = dry.out.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{}", dry.out)).to_owned()
    };
    assert!(line("a").contains("used by web"), "{}", dry.out);
    assert!(line("c").contains("it is the default kernel"), "{}", dry.out);
    assert!(line("b").contains("its contents go with the last"), "{}", dry.out);
    assert!(line("k").contains("no VM was made from it"), "{}", dry.out);
    assert!(dry.err.contains("3 names would go, which frees 34M"), "{}", dry.err);
    let usage = json(&run("kernel prune --dry-run --json"));
    assert_eq!(usage.as_array().unwrap().len(), 4, "{usage}");
    assert_eq!(run("kernel prune --json").code, 2);
    assert_eq!(run("kernel list -q").out.lines().count(), 5, "looking changes nothing");
    let said = run("kernel prune");
    assert_eq!((said.code, said.out.as_str()), (0, "b\ntwin\nk\n"), "{}", said.err);
    assert!(said.err.contains("3 names removed, 34M freed"), "{}", said.err);
    assert_eq!(run("kernel list -q").out, "a\nc\n");
    let said = run("kernel prune");
    assert!(said.err.contains("`banger kernel prune --dry-run` tells why"), "{}", said.err);
}

#[test]
fn a_kernel_is_pulled_by_the_name_of_its_package() {
    let (daemon, here) = place("");
    let run = |line: &str| here.banger(&daemon.socket(), line).current_dir(here.path()).said();
    let package = "linux-image-cloud-amd64";
    let said = run(&format!("kernel pull {package}"));
    assert_eq!((said.code, said.out), (0, format!("{package}\n")), "{}", said.err);
    assert!(said.err.contains("\nmake-files  "), "{}", said.err);
    let said = run(&format!("kernel pull {package}"));
    assert_eq!((said.code, said.out), (0, format!("{package}\n")), "{}", said.err);
    let here_already = format!("{package}: {package} 6.1.0 is here already\n");
    assert!(said.err.contains(&here_already), "{}", said.err);
    assert!(!said.err.contains("make-files"), "{}", said.err);
    assert_eq!(run(&format!("kernel pull {package} --name next -q")).out, "next\n");
    let shown = json(&run("kernel show next --json"));
    assert_eq!(shown["source"], format!("debian {package} 6.1.0"));
    assert!(run("kernel list").out.contains("debian linux-image-cloud-amd64 6.1.0"));
    let ops = run("ops list").out;
    assert_eq!(ops.matches("kernel-pull").count(), 3, "{ops}");
    // What somebody imported under a name is not replaced.
    let said = run(&format!("kernel pull {package} --name k"));
    assert!(said.code == 1 && said.err.contains("k exists with other contents"), "{}", said.err);
    for (line, why) in [
        ("kernel pull ../x", "is not the name of a Debian package"),
        ("kernel pull Linux", "is not the name of a Debian package"),
        ("kernel pull linux-image --suite=-t", "is no suite"),
        ("kernel pull g++", "letters a-z"),
    ] {
        let said = run(line);
        assert!(said.code == 1 && said.err.contains(why), "{line}: {}", said.err);
    }
    assert_eq!(run("kernel pull -o").code, 2);
}
