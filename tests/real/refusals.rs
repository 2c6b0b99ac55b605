//! What goes wrong is said clearly, by its op id, and loses nothing.

use std::time::Duration;

use crate::support::{Settings, new_host, until};

/// The id in `banger: …: … (op-…)`.
fn op_id(stderr: &str) -> String {
    let at = stderr.find("(op-").unwrap_or_else(|| panic!("no op id in: {stderr}")) + 1;
    stderr[at..at + 35].to_owned()
}

#[test]
fn a_guest_that_never_comes_up_says_so_with_its_last_words() {
    let host = new_host!(Settings {
        config: "boot_timeout = \"300ms\"".to_owned(),
        ..Settings::default()
    });
    let failed = host.banger(&["vm", "run", "--name", "slow", "--", "true"]).expect(125);
    assert!(failed.stderr.contains("not ready within 0.3 s"), "{}", failed.stderr);
    assert!(failed.stderr.contains("hint:"), "{}", failed.stderr);
    assert_eq!(host.show("slow")["state"], "stopped");
    assert!(host.guests().is_empty());
    // The whole story is found under its id: in the logs of CLI, daemon and helper.
    let op = op_id(&failed.stderr);
    for log in ["cli.jsonl", "bangerd.log", "audit.jsonl"] {
        assert!(host.log(log).contains(&op), "{op} is not in {log}");
    }
    let ladder = host.banger(&["ops", "show", &op]).ok();
    assert!(ladder.contains("await-ready"), "{ladder}");
}

#[test]
fn without_a_helper_everything_that_needs_it_says_so() {
    let mut host = new_host!();
    host.kill_helper();
    let failed = host.banger(&["vm", "run", "--name", "web", "--", "true"]).expect(125);
    assert!(failed.stderr.contains("helper"), "{}", failed.stderr);
    assert!(failed.stderr.contains("doctor"), "{}", failed.stderr);
    host.banger(&["doctor"]).expect(1);
    host.start_helper();
    host.banger(&["vm", "start", "web"]).ok();
    host.banger(&["vm", "exec", "web", "--", "true"]).ok();
}

#[test]
fn a_missing_vmm_is_named() {
    let config = "qemu_bin = \"/nonexistent/qemu-system-x86_64\"".to_owned();
    let host = new_host!(Settings { config, ..Settings::default() });
    let failed = host.banger(&["vm", "run", "--", "true"]).expect(125);
    assert!(failed.stderr.contains("/nonexistent/qemu-system-x86_64"), "{}", failed.stderr);
    assert!(failed.stderr.contains("qemu-system-x86"), "the package: {}", failed.stderr);
}

#[test]
fn a_subnet_that_is_in_use_is_refused_by_name() {
    let mut host = new_host!(Settings { helper: false, stocked: false, ..Settings::default() });
    host.inside("ip", &["link", "add", "other0", "type", "bridge"]).ok();
    host.inside("ip", &["addr", "add", "10.77.0.9/24", "dev", "other0"]).ok();
    host.inside("ip", &["link", "set", "other0", "up"]).ok();
    host.start_helper();
    until("doctor knows why", Duration::from_secs(20), || {
        let report = host.banger(&["doctor"]).stdout;
        report.contains("other0")
    });
}

#[test]
fn a_damaged_image_or_kernel_is_named() {
    let host = new_host!();
    let find = |folder: &str, name: &str| {
        let dir = std::fs::read_dir(host.dir.join("s").join(folder)).unwrap();
        let mut paths = dir.filter_map(Result::ok).map(|entry| entry.path());
        paths.find(|path| path.display().to_string().contains(name)).unwrap()
    };
    let image = find("images", ".ext4");
    std::fs::remove_file(&image).unwrap();
    let failed = host.banger(&["vm", "run", "--name", "a", "--", "true"]).expect(125);
    let digest = image.file_stem().unwrap().to_string_lossy()[..12].to_owned();
    assert!(failed.stderr.contains(&digest), "{}", failed.stderr);
    assert!(host.guests().is_empty());
}

#[test]
fn an_image_in_use_stays() {
    let host = new_host!();
    host.banger(&["vm", "create", "--no-start", "--name", "web"]).ok();
    let refused = host.banger(&["image", "delete", "tiny"]).expect(1);
    assert!(refused.stderr.contains("web"), "who uses it: {}", refused.stderr);
    host.banger(&["kernel", "rm", "debian"]).expect(1);
    host.banger(&["vm", "delete", "web"]).ok();
    host.banger(&["image", "delete", "tiny"]).ok();
    host.banger(&["image", "show", "tiny"]).expect(4);
}

#[test]
fn another_user_is_refused_by_daemon_and_helper() {
    let host = new_host!(Settings { stocked: false, ..Settings::default() });
    let cli = host.dir.join("bin/banger").display().to_string();
    // The sockets' modes keep others out; with those out of the way it is the peer's uid.
    for socket in ["r", "r/bangerd.sock"] {
        let path = host.dir.join(socket);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let other =
        ["--reuid", "1", "--regid", "1", "--clear-groups", "env", "HOME=/", &cli, "vm", "list"];
    let refused = host.inside("setpriv", &other).expect(1);
    assert!(refused.stderr.contains("uid 1 may not use this daemon"), "{}", refused.stderr);
}
