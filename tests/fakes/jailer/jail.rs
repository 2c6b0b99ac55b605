//! The jail itself, made in the real one's order.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{Gid, Uid, chroot, setgid, setgroups, setuid};

use super::arguments::Jail;

/// Name, major and minor number.
const DEVICES: [(&str, u64, u64); 3] =
    [("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];

impl Jail {
    /// Becomes the jailed program, or tells why not.
    pub(crate) fn enter(self) -> String {
        match self.try_enter() {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    fn try_enter(self) -> Result<std::convert::Infallible, String> {
        let name = self.exec.file_name().expect("a file has a name").to_owned();
        let root = self.base.join(&name).join(&self.id).join("root");
        self.join_cgroup()?;
        DirBuilder::new()
            .recursive(true)
            .create(&root)
            .map_err(|error| format!("Failed to create directory {}: {error}", root.display()))?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|error| format!("Failed to unshare into new mount namespace: {error}"))?;
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
            .map_err(|error| format!("Failed to change the propagation type to slave: {error}"))?;
        let inside = root.join(&name);
        // Directories of libraries are for whoever runs the program, as those of a real host are.
        let before = umask(Mode::from_bits_truncate(0o022));
        bind(&self.exec, &inside)?;
        for library in libraries() {
            let relative = library.strip_prefix("/").expect("an absolute path");
            bind(&library, &root.join(relative))?;
        }
        let faults = with_ending(&self.exec);
        if faults.exists() {
            bind(&faults, &with_ending(&inside))?;
        }
        umask(before);
        std::env::set_current_dir(&root)
            .map_err(|error| format!("Failed to chdir into chroot directory: {error}"))?;
        chroot(".").map_err(|error| format!("Failed to pivot root: {error}"))?;
        for dir in ["/", "/dev", "/dev/net", "/run"] {
            self.own_directory(Path::new(dir))?;
        }
        for (device, major, minor) in DEVICES {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            mknod(device, SFlag::S_IFCHR, mode, makedev(major, minor)).map_err(|error| {
                let error = io::Error::from(error);
                format!("Failed to create {device} via mknod inside the jail: {error}")
            })?;
            self.own(Path::new(device))?;
        }
        let program = Path::new("/").join(&name);
        let pid_file = with_suffix(&program, ".pid");
        let made = File::create_new(&pid_file)
            .and_then(|_| fs::write(&pid_file, std::process::id().to_string()));
        made.map_err(|error| format!("Failed to open file {}: {error}", pid_file.display()))?;
        self.drop_rights()?;
        let error = Command::new(&program)
            .arg0(&program)
            .args(["--id", &self.id, "--start-time-us", "0", "--start-time-cpu-us", "0"])
            .args(["--parent-cpu-time-us", "0"])
            .args(&self.rest)
            .env_clear()
            .exec();
        Err(format!("Failed to exec into Firecracker: {error}"))
    }

    /// Where there is no such cgroup, nothing happens.
    fn join_cgroup(&self) -> Result<(), String> {
        let Some(parent) = &self.parent_cgroup else { return Ok(()) };
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let mount = mounts.lines().find_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            (words.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(words[1]))
        });
        let Some(dir) = mount.map(|mount| mount.join(parent)).filter(|dir| dir.is_dir()) else {
            return Ok(());
        };
        fs::write(dir.join("cgroup.procs"), std::process::id().to_string()).map_err(|error| {
            format!("Failed to move process to cgroup ({}): {error}.", dir.display())
        })
    }

    fn own_directory(&self, dir: &Path) -> Result<(), String> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| format!("Failed to create directory {}: {error}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|error| {
            format!("Failed to change permissions on {}: {error}", dir.display())
        })?;
        self.own(dir)
    }

    fn own(&self, path: &Path) -> Result<(), String> {
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(|error| format!("Failed to change owner for {}: {error}", path.display()))
    }

    fn drop_rights(&self) -> Result<(), String> {
        let failed = |error| format!("Failed to exec into Firecracker: {}", io::Error::from(error));
        setgroups(&[]).map_err(failed)?;
        setgid(Gid::from_raw(self.gid)).map_err(failed)?;
        setuid(Uid::from_raw(self.uid)).map_err(failed)
    }
}

/// Read-only, on a file made for it. What lies there already is refused if it is a link.
fn bind(from: &Path, to: &Path) -> Result<(), String> {
    if fs::symlink_metadata(to).is_ok_and(|found| found.is_symlink()) {
        return Err(format!("Failed to copy {} to {}: a link", from.display(), to.display()));
    }
    let failed = |error: io::Error| {
        format!("Failed to copy {} to {}: {error}", from.display(), to.display())
    };
    fs::create_dir_all(to.parent().expect("not the root")).map_err(failed)?;
    File::create(to).map_err(failed)?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| failed(error.into()))
}

/// What this program is linked with: the jailed one is linked with the same.
fn libraries() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").expect("the maps");
    let paths = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| path));
    let libraries = paths.filter(|path| path.contains(".so")).map(|path| format!("/{path}"));
    let mut found: BTreeSet<PathBuf> = libraries.map(PathBuf::from).collect();
    // The name by which programs ask for their loader is a link on most systems.
    let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    found.extend(loader.iter().map(PathBuf::from).filter(|path| path.exists()));
    found
}

fn with_ending(program: &Path) -> PathBuf {
    with_suffix(program, ".faults")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
