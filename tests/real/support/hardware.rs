//! A host whose CPU seems to virtualise, for a daemon that is to choose a VMM as on a real one.
//!
//! The daemon believes what `/proc/cpuinfo` and `/dev/kvm` say, and nothing in it can be told
//! otherwise. So it is started where both say what the test wants: in a mount namespace of its own
//! (`ip netns exec` makes one for each command). A VMM that used such a device would fail; the fake
//! one does not look at it.

use std::fs;
use std::path::{Path, PathBuf};

/// Runs the rest of its arguments where `$0` holds the files and the device.
const ENTER: &str = r#"
set -e
mount --bind "$0/cpuinfo" /proc/cpuinfo
mkdir -p "$0/dev"
mount -t tmpfs -o mode=0755,size=64k tmpfs "$0/dev"
for device in null zero full random urandom tty; do cp -a "/dev/$device" "$0/dev/$device"; done
mkdir "$0/dev/shm"
mknod -m 0666 "$0/dev/kvm" c 1 3
mount --bind "$0/dev" /dev
exec "$@"
"#;

/// The words that put a command where hardware virtualisation seems to be usable.
pub(crate) fn pretend(dir: &Path) -> [String; 4] {
    let place = dir.join("hardware");
    fs::create_dir_all(&place).unwrap();
    let real = fs::read_to_string("/proc/cpuinfo").unwrap();
    let line = |line: &str| match line.starts_with("flags") {
        true => format!("{line} svm\n"),
        false => format!("{line}\n"),
    };
    fs::write(place.join("cpuinfo"), real.lines().map(line).collect::<String>()).unwrap();
    ["sh", "-c", ENTER, &place.display().to_string()].map(str::to_owned)
}

/// Whether a real VMM can run guests here.
pub(crate) fn usable() -> bool {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let virtualises = flags.split(' ').any(|flag| matches!(flag, "svm" | "vmx"));
    let kvm = PathBuf::from("/dev/kvm");
    virtualises && fs::File::options().read(true).write(true).open(kvm).is_ok()
}
