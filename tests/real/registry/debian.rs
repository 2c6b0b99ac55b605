//! A whole Debian, made an image by umoci: with systemd as its init, and with that taken away again.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use super::depot::{DEPOT, Depot, Door, push};
use super::{LIMIT, settings};
use crate::support::{Host, cache, new_host, sha256, until};

const SUITE: &str = "bookworm";
const INCLUDE: &str = "systemd-sysv,dbus";

#[test]
fn a_debian_and_one_with_systemd_boot_from_the_registry() {
    let host = new_host!(settings(true));
    let _depot = Depot::start(&host, Door::default());
    let layout = made_by_umoci(&host);
    for tag in ["systemd", "plain"] {
        push(
            &host,
            &format!("{}:{tag}", layout.display()),
            &format!("debian:{tag}"),
            Door::default(),
        );
    }
    let reference = |tag: &str| format!("{DEPOT}/debian:{tag}");
    let plain = reference("plain");
    // What a whiteout took away is gone, and what dpkg knows of its files is so.
    let script =
        "basename \"$(readlink /proc/1/exe)\"; test ! -e /sbin/init; stat -c %U:%G:%a /etc/shadow
        dpkg --verify base-files coreutils passwd login && echo $FLAVOUR";
    let run = ["vm", "run", "--rm", "--image", &plain, "--", "sh", "-ec", script];
    assert_eq!(host.banger(&run).ok(), "init (deleted)\nroot:shadow:640\nplain\n");
    let create = ["vm", "create", "--name", "whole", "--image", &reference("systemd")];
    host.banger(&create).ok();
    let exec = |script: &str| host.banger(&["vm", "exec", "whole", "--", "sh", "-c", script]);
    assert_eq!(exec("basename $(readlink /proc/1/exe)").ok(), "systemd\n");
    until("systemd is through", LIMIT, || {
        exec("systemctl is-active multi-user.target").code == Some(0)
    });
    assert_eq!(exec("systemctl list-units --failed --no-legend --plain").ok(), "");
    host.banger(&["vm", "stop", "whole"]).ok();
}

/// A layout with two images.
fn made_by_umoci(host: &Host) -> PathBuf {
    let layout = host.dir.join("debian");
    let script = "set -e; layout=$1 tree=$2 bundle=$layout.bundle
        umoci init --layout $layout
        umoci new --image $layout:systemd
        umoci unpack --image $layout:systemd $bundle
        tar -C $bundle/rootfs --numeric-owner --xattrs --xattrs-include='*' -xpf $tree
        umoci repack --image $layout:systemd $bundle
        umoci config --image $layout:systemd --config.cmd /sbin/init
        rm $bundle/rootfs/sbin/init
        umoci repack --image $layout:plain $bundle
        umoci config --image $layout:plain --config.cmd sh --config.env FLAVOUR=plain
        rm -r $bundle";
    let (to, tree) = (layout.display().to_string(), tree().display().to_string());
    host.inside("bash", &["-c", script, "umoci", &to, &tree]).ok();
    layout
}

/// Made once.
fn tree() -> PathBuf {
    let key = sha256(format!("{SUITE} {INCLUDE}").as_bytes());
    let path = cache().join(format!("debian-{}.tar", &key[..12]));
    let lock = File::create(path.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    if !path.exists() {
        let temporary = path.with_extension("new.tar");
        build(&temporary);
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&temporary, &path).unwrap();
    }
    path
}

fn build(path: &Path) {
    eprintln!("building a Debian, once: a minute or two");
    // All that it starts ends with it, and it with the thread that waits for it.
    let mut mmdebstrap = Command::new("setpriv");
    mmdebstrap.args(["--pdeathsig", "KILL", "unshare", "--pid", "--mount-proc", "--kill-child"]);
    mmdebstrap.args(["mmdebstrap", "--quiet", "--variant=minbase"]);
    mmdebstrap.args([r#"--aptopt=APT::Install-Recommends "false""#]);
    mmdebstrap.arg(format!("--include={INCLUDE}")).arg(SUITE).arg(path);
    let made = mmdebstrap.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{mmdebstrap:?}: {}\n{said}", made.status);
}
