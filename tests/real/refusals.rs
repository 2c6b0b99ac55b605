//! What goes wrong is said clearly, by its op id, and loses nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Host, Settings, new_host, until};

/// The id in `banger: …: … (op-…)`.
fn op_id(stderr: &str) -> String {
    let at = stderr.find("(op-").unwrap_or_else(|| panic!("no op id in: {stderr}")) + 1;
    stderr[at..at + 35].to_owned()
}

#[test]
fn a_guest_that_never_comes_up_says_so_and_its_story_is_in_every_log() {
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
    // Refused before anything was made.
    host.banger(&["vm", "show", "web"]).expect(4);
    host.start_helper();
    host.banger(&["vm", "run", "--name", "web", "--", "true"]).ok();
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
    let mut host = new_host!(Settings { helper: false, ..Settings::default() });
    host.inside("ip", &["link", "add", "other0", "type", "bridge"]).ok();
    host.inside("ip", &["addr", "add", "10.77.0.9/24", "dev", "other0"]).ok();
    host.inside("ip", &["link", "set", "other0", "up"]).ok();
    host.start_helper();
    until("doctor knows why", Duration::from_secs(20), || {
        let report = host.banger(&["doctor"]).stdout;
        report.contains("other0")
    });
    let failed = host.banger(&["vm", "run", "--name", "web", "--", "true"]).expect(125);
    assert!(failed.stderr.contains("other0"), "{}", failed.stderr);
    // Once it is out of the way nothing stands in the way.
    host.inside("ip", &["link", "delete", "other0"]).ok();
    host.banger(&["vm", "start", "web"]).ok();
}

#[test]
fn a_missing_or_damaged_image_or_kernel_is_named() {
    let host = new_host!();
    let refused = |path: &Path, kept: bool| {
        let failed = host.banger(&["vm", "run", "--name", "a", "--", "true"]).expect(125);
        assert!(failed.stderr.contains(&path.display().to_string()), "{}", failed.stderr);
        assert!(failed.stderr.contains("hint: "), "{}", failed.stderr);
        assert!(host.guests().is_empty());
        assert_eq!(failed.stderr.contains("a is kept, stopped"), kept, "{}", failed.stderr);
        if kept {
            host.banger(&["vm", "delete", "a"]).ok();
        }
    };
    // The image is looked at before a VM is made, for its root depends on it.
    let image = (stored(&host, "images", ".ext4"), false);
    let kernel = (stored(&host, "kernels", "").join("vmlinux"), true);
    for (path, kept) in [image, kernel] {
        let aside = host.dir.join("aside");
        std::fs::rename(&path, &aside).unwrap();
        refused(&path, kept);
        std::fs::copy(&aside, &path).unwrap();
        let short = std::fs::File::options().write(true).open(&path).unwrap();
        short.set_len(std::fs::metadata(&aside).unwrap().len() / 2).unwrap();
        refused(&path, kept);
        std::fs::rename(&aside, &path).unwrap();
    }
    // Nothing of what was right is lost by it.
    host.banger(&["vm", "run", "--rm", "--name", "a", "--", "true"]).ok();
}

/// The path of what is stored there.
fn stored(host: &Host, folder: &str, ending: &str) -> PathBuf {
    let dir = std::fs::read_dir(host.dir.join("s").join(folder)).unwrap();
    let mut paths = dir.filter_map(Result::ok).map(|entry| entry.path());
    paths.find(|path| path.display().to_string().ends_with(ending)).unwrap()
}

/// Damage that only a guest can find: the superblock is sound, what it leads to is not.
#[test]
fn a_guest_that_cannot_boot_is_explained_by_its_consoles_last_lines() {
    let host = new_host!();
    let image = std::fs::File::options().write(true).open(stored(&host, "images", ".ext4"));
    std::os::unix::fs::FileExt::write_all_at(&image.unwrap(), &vec![0xff; 1 << 20], 4096).unwrap();
    let failed = host.banger(&["vm", "run", "--name", "web", "--", "true"]).expect(125);
    let console: Vec<_> = failed.stderr.lines().filter(|line| line.starts_with("    ")).collect();
    assert!(console.iter().any(|line| line.contains("boot failed at root")), "{}", failed.stderr);
    assert!(failed.stderr.contains("banger vm logs web"), "{}", failed.stderr);
    assert_eq!(host.show("web")["state"], "stopped");
    assert!(host.guests().is_empty());
    assert!(host.banger(&["vm", "logs", "web"]).ok().contains("boot failed at root"));
    host.banger(&["vm", "delete", "web"]).ok();
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
    let other =
        ["--reuid", "1", "--regid", "1", "--clear-groups", "env", "HOME=/", &cli, "vm", "list"];
    let refused = host.inside("setpriv", &other).expect(3);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    assert!(refused.stderr.contains("the user who runs the daemon"), "{}", refused.stderr);
    // The sockets' modes keep others out; with those out of the way it is the peer's uid.
    for socket in ["r", "r/bangerd.sock"] {
        let path = host.dir.join(socket);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let refused = host.inside("setpriv", &other).expect(1);
    assert!(refused.stderr.contains("uid 1 may not use this daemon"), "{}", refused.stderr);
    // A helper that serves somebody else is told from one that is not there.
    std::os::unix::fs::chown(host.dir.join("h/helper.sock"), Some(1), Some(1)).unwrap();
    let report = host.banger(&["doctor"]).expect(1);
    assert!(report.stdout.contains("Permission denied"), "{}", report.stdout);
    assert!(report.stdout.contains("the helper serves another user"), "{}", report.stdout);
}

#[test]
fn the_daemon_is_never_root() {
    let host = new_host!(Settings { stocked: false, ..Settings::default() });
    let config = host.dir.join("config.toml").display().to_string();
    let bangerd = host.dir.join("bin/bangerd").display().to_string();
    // A service manager does not start anew what ends with this.
    let refused = host.inside(&bangerd, &["--config", &config]).expect(78);
    assert!(refused.stderr.contains("bangerd never runs as root"), "{}", refused.stderr);
}
