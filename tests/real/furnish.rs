//! What the owner wants in every guest is there when it starts, each time.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Settings, new_host};

#[test]
fn the_owners_files_and_name_are_in_every_guest_at_every_start() {
    // Beside the host's directory, whose name is not known yet.
    let shared = std::env::temp_dir().join(format!("bgt-furnish-{}", std::process::id()));
    fs::create_dir_all(shared.join("tree/below")).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(shared.join("file"), "one").unwrap();
    fs::write(shared.join("tree/below/f"), "f").unwrap();
    let at = shared.display();
    let entries = [("file", ".config/app/file"), ("tree", "tree"), ("missing", "missing")];
    let config = entries.map(|(host, guest)| {
        format!("[[file_sync]]\nhost = \"{at}/{host}\"\nguest = \"~/{guest}\"\n")
    });
    let host = new_host!(Settings { config: config.concat(), ..Settings::default() });
    let identity = host.dir.join("s/.gitconfig");
    fs::write(&identity, "[user]\nname = Ann\nemail = ann@example\n").unwrap();
    let mut host = host;
    host.kill_daemon();
    host.start_daemon();
    let made = host.banger(&["vm", "run", "-d", "--name", "g"]).expect(0);
    assert!(made.stderr.contains("missing is not there"), "{}", made.stderr);
    let exec = |line: &str| host.banger(&["vm", "exec", "g", "--", "sh", "-c", line]).ok();
    let told =
        "cd /root && cat .config/app/file tree/below/f && ls -l .config/app/file | cut -c 1-10";
    assert_eq!(exec(told), "onef-rw-------\n");
    let own = "grep -c 'name = \"Ann\"' .gitconfig; echo '[core]' >> .gitconfig";
    if std::process::Command::new("git").arg("--version").output().is_ok() {
        assert_eq!(exec(own), "1\n");
    }
    // The installation's key opens it without the daemon.
    let key = host.dir.join("s/ssh/id_ed25519");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = host.dir.join("key");
    fs::copy(&key, &copy).unwrap();
    let ssh = [
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-i",
        &copy.display().to_string(),
        "root@10.77.0.2",
        "id -u",
    ];
    assert_eq!(host.inside("ssh", &ssh).ok(), "0\n");
    fs::write(shared.join("file"), "two").unwrap();
    host.banger(&["vm", "restart", "g"]).ok();
    assert_eq!(
        exec("cat .config/app/file; grep -c Ann .gitconfig; tail -n 1 .gitconfig"),
        "two1\n[core]\n"
    );
    fs::remove_dir_all(&shared).unwrap();
}
