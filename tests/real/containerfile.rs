//! A Containerfile is built by buildah, as the daemon's own user, and runs as it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Host, OWNER, busybox_tar, new_host};

/// Ids for the daemon's user, on this host alone: `ip netns exec` lays these files over those of `/etc`.
struct Ids(PathBuf);

impl Ids {
    fn for_owner_on(host: &Host) -> Self {
        let dir = Path::new("/etc/netns").join(&host.netns);
        fs::create_dir_all(&dir).unwrap();
        for file in ["subuid", "subgid"] {
            fs::write(dir.join(file), format!("{OWNER}:500000:65536\n")).unwrap();
        }
        Self(dir)
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
        // Unless somebody else has some.
        drop(fs::remove_dir("/etc/netns"));
        // buildah marks there that its user has run it.
        for mark in ["containers-user", "podman-run"] {
            drop(fs::remove_dir_all(format!("/tmp/{mark}-{OWNER}")));
        }
    }
}

#[test]
fn a_containerfile_becomes_an_image_that_runs_as_it_says() {
    if Command::new("buildah").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no buildah");
    }
    let mut host = new_host!();
    let _ids = Ids::for_owner_on(&host);
    host.kill_daemon();
    host.start_daemon();
    let context = host.dir.join("app");
    fs::create_dir(&context).unwrap();
    let tree = context.join("root.tar");
    fs::copy(busybox_tar(), &tree).unwrap();
    let write = |name: &str, text: &str| fs::write(context.join(name), text).unwrap();
    write("hello", "#!/bin/sh\necho $GREETING, $(cat /etc/word), from $(id -u)\n");
    write(
        "Containerfile",
        "FROM scratch AS base\nADD root.tar /\nFROM base AS unused\nRUN false\nFROM base\nARG WORD\n\
         RUN echo $WORD > /etc/word && chown 7:7 /etc/word\nCOPY --chmod=755 hello /usr/bin/hello\n\
         ENV GREETING=\"good day\"\nUSER 7\nCMD [\"hello\"]\n",
    );
    let at = context.display().to_string();
    let build = ["image", "build", "containerfile", &at, "--build-arg", "WORD=friend"];
    let built = host.banger(&build).expect(0);
    assert_eq!(built.stdout, "app\n");
    assert!(built.stderr.contains("STEP 2/"), "{}", built.stderr);
    let run = ["vm", "run", "--rm", "--image", "app"];
    assert_eq!(host.banger(&run).ok(), "good day, friend, from 7\n");
    // What fails says where, and leaves nothing.
    let failed = [&build[..], &["--name", "other", "--target", "unused"]].concat();
    let failed = host.banger(&failed).expect(1);
    assert!(failed.stderr.contains("RUN false"), "{}", failed.stderr);
    assert_eq!(host.banger(&["image", "list", "-q"]).ok(), "app\ntiny\n");
    assert_eq!(fs::read_dir(host.dir.join("s/tmp")).unwrap().count(), 0);
}
