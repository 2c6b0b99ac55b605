//! What guests boot from: a kernel package from Debian's archive and a tiny image around busybox.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Where expensive things are kept between runs.
pub(crate) fn cache() -> PathBuf {
    let dir = std::env::var_os("BANGER_TEST_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"), PathBuf::from);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The package that `linux-image-cloud-amd64` stands for. `scripts/test.sh` names it; a test that
/// is run by hand looks into the cache.
pub(crate) fn kernel_package() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BANGER_TEST_KERNEL_DEB") {
        return Some(path.into());
    }
    let dir = fs::read_dir(cache().join("kernel")).ok()?;
    let mut debs = dir.filter_map(Result::ok).map(|entry| entry.path());
    debs.find(|path| path.extension().is_some_and(|ext| ext == "deb"))
}

/// Where banger's own programs are: those built with these tests, or, on a host that was not built
/// on, those that are installed there.
pub(crate) fn programs() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_bangerd")).parent().unwrap().to_owned();
    std::env::var_os("BANGER_TEST_PROGRAMS").map_or(built, PathBuf::from)
}

/// The static agent, as `scripts/test.sh` builds it.
pub(crate) fn agent() -> Option<PathBuf> {
    let built = programs();
    // Not the one beside the tests' own programs: that is not static.
    let beside = [built.join("../release/banger-agent")];
    let named = std::env::var_os("BANGER_TEST_AGENT").map(PathBuf::from);
    named.into_iter().chain(beside).find(|path| path.is_file())
}

/// A root file system of one static program, as a tar. No init: the agent stays in charge.
pub(crate) fn busybox_tar() -> PathBuf {
    let dir = cache();
    let lock = File::create(dir.join("busybox.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let path = dir.join("busybox-v2.tar");
    if !path.exists() {
        let temporary = dir.join("busybox.tar.new");
        write_busybox(&temporary);
        fs::rename(&temporary, &path).unwrap();
    }
    path
}

/// The same with programs of one's own: path in the image and content.
pub(crate) fn busybox_with<T: AsRef<[u8]>>(programs: &[(&str, T)], path: &Path) {
    let mut base = tar::Archive::new(File::open(busybox_tar()).unwrap());
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for entry in base.entries().unwrap() {
        let mut entry = entry.unwrap();
        tar.append(&entry.header().clone(), &mut entry).unwrap();
    }
    for (name, text) in programs {
        let text = text.as_ref();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text).unwrap();
    }
    tar.into_inner().unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn write_busybox(path: &Path) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    let directory = |tar: &mut tar::Builder<File>, name: &str, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        tar.append_data(&mut header, name, std::io::empty()).unwrap();
    };
    let names = ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "var", "usr", "usr/bin", "mnt"];
    for name in names {
        directory(&mut tar, name, 0o755);
    }
    directory(&mut tar, "root", 0o700);
    directory(&mut tar, "tmp", 0o1777);
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let program = fs::read(busybox.expect("busybox-static is installed")).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    tar.append_data(&mut header, "bin/busybox", program.as_slice()).unwrap();
    let applets = "sh ash cat ls echo true false uname hostname ip ping sync sha256sum dd sleep \
                   grep head tail wc mkdir rm touch id env kill ps stty vi tty nc wget test expr \
                   mount df dmesg printf seq tr sed awk top free which readlink pwd date ln cp";
    for applet in applets.split_whitespace() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/os-release", "NAME=Tiny\nPRETTY_NAME=\"Tiny test image\"\nVERSION_ID=1\n"),
    ];
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().sync_all().unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Bytes that nothing makes shorter, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    const BLOCK: usize = 1 << 20;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length.next_multiple_of(BLOCK));
    while bytes.len() < length.min(BLOCK) {
        bytes.extend(next());
    }
    // To make all of it one by one takes longer than what is done with it. Each block is the first,
    // begun elsewhere: alike for nobody who does not look a megabyte back.
    while bytes.len() < length {
        let at = (bytes.len() / BLOCK * 4099) % BLOCK;
        bytes.extend_from_within(at..BLOCK);
        bytes.extend_from_within(..at);
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn sha256(data: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}
