//! The host's disk: Debian with what banger needs, built by mmdebstrap.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Cache, Entry, key};

/// To be raised when the image must be built anew though nothing that `key` sees has changed.
const FORMAT: &str = "1";
const SUITE: &str = "bookworm";
const SIZE: &str = "16G";
const PACKAGES: &str = include_str!("image/packages");
const CUSTOMIZE: &str = include_str!("image/customize.sh");
const RECOMMENDS: &str = r#"--aptopt=APT::Install-Recommends "false""#;

/// Files of an image, also of one that is not there yet.
pub(crate) fn disk(image: &Path) -> PathBuf {
    image.join("host.img")
}

pub(crate) fn kernel(image: &Path) -> PathBuf {
    image.join("vmlinuz")
}

pub(crate) fn initrd(image: &Path) -> PathBuf {
    image.join("initrd.img")
}

pub(crate) fn get(cache: &Cache) -> Entry {
    let key = key([FORMAT, SUITE, SIZE, PACKAGES, CUSTOMIZE, RECOMMENDS]);
    cache.entry(&cache.dir, "image", &key, build)
}

fn build(dir: &Path) {
    eprintln!("building the test host's image, once: minutes");
    let root = dir.join("root");
    let hook = dir.join("customize.sh");
    fs::write(&hook, CUSTOMIZE).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let packages = PACKAGES.split_whitespace().collect::<Vec<_>>().join(",");
    // All that it starts ends with it, and it with the thread that waits for it.
    let mut mmdebstrap = Command::new("setpriv");
    mmdebstrap.args(["--pdeathsig", "KILL", "unshare", "--pid", "--mount-proc", "--kill-child"]);
    mmdebstrap.args(["mmdebstrap", "--quiet", "--variant=minbase", RECOMMENDS]);
    mmdebstrap.arg(format!("--include={packages}"));
    mmdebstrap.arg(format!("--customize-hook={}", hook.display()));
    run(dir, mmdebstrap.arg(SUITE).arg(&root));
    for (prefix, to) in [("vmlinuz-", kernel(dir)), ("initrd.img-", initrd(dir))] {
        fs::copy(only(&root.join("boot"), prefix), to).unwrap();
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d"]);
    run(dir, mke2fs.arg(&root).arg(disk(dir)).arg(SIZE));
    run(dir, Command::new("rm").args(["-rf", "--one-file-system"]).arg(&root));
    fs::remove_file(dir.join("log")).unwrap();
}

/// Runs to a good end, or shows what it said.
fn run(dir: &Path, command: &mut Command) {
    let log = dir.join("log");
    let file = File::create(&log).unwrap();
    command.stdin(std::process::Stdio::null());
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = || String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{}", said());
}

fn only(dir: &Path, prefix: &str) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    names.into_iter().find(fits).unwrap_or_else(|| panic!("no {prefix}* in the image"))
}
